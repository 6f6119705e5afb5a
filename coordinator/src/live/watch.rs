//! Observes one sale for all of its viewers: one task per sale, and none without viewers.

use std::sync::Arc;
use std::time::Duration;

use rediscluster::EpochMs;
use serde_json::{Value, json};
use service::events::{EVENT_PERIOD, EventPublisher, event};
use service::time::now;
use stock::calls::ReadLevel;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::presence::{Presence, ProcessList};
use stock::store::ReadSnapshot;
use tokio::time::Instant;

use super::moves::moves;
use super::report::live;
use crate::context::Context;
use crate::observation::Observation;
use crate::rounds::ticks;

/// Longest time without a report. The page shows that it is not live when it receives nothing for much longer.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// Time between two reads of the list of processes, which is as often as they announce themselves.
const PRESENCE_PERIOD: Duration = Duration::from_secs(1);
/// How long the task continues without viewers. A page that is reloaded finds it still running.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A sale that has viewers.
pub(super) struct SaleWatch {
    context: Arc<Context>,
    sale: SaleId,
    previous: Option<Observation>,
    processes: Option<ProcessList>,
    processes_read_at: Option<Instant>,
}

impl SaleWatch {
    pub(super) fn new(context: Arc<Context>, sale: SaleId) -> Self {
        Self { context, sale, previous: None, processes: None, processes_read_at: None }
    }

    /// Publishes changes until there were no viewers for a while, or the sale is no longer known.
    pub(super) async fn run(mut self, publisher: EventPublisher) {
        self.previous = self.published().await;
        let (mut sent, mut sent_at, mut watched_at) = (Value::Null, Instant::now(), Instant::now());
        let mut ticks = ticks(EVENT_PERIOD);
        while watched_at.elapsed() < IDLE_MAX {
            ticks.tick().await;
            if publisher.has_listeners() {
                watched_at = Instant::now();
            }
            let Some((taken_at, mut report)) = self.observe().await else { return };
            if sent != report || sent_at.elapsed() >= SILENCE_MAX {
                (sent, sent_at) = (report.clone(), Instant::now());
                report["time"] = json!((taken_at > 0).then_some(taken_at));
                publisher.publish(event("live", &report));
            }
        }
    }

    /// Returns the published snapshot, as an observation without levels. It has the last known numbers of shards that
    /// cannot be read now.
    async fn published(&self) -> Option<Observation> {
        let snapshot = self.context.reads.poll(ReadSnapshot(&SaleKeys::new(&self.sale))).await.ok()??;
        let desired = self.context.records.known().get(&self.sale)?.clone();
        Some(Observation { snapshot, ..Observation::of(&desired, Vec::new(), (Instant::now(), now()), None) })
    }

    /// Returns the time by Redis' clock, which is 0 if no shard could be read, and the report.
    async fn observe(&mut self) -> Option<(EpochMs, Value)> {
        self.refresh_processes().await;
        let Context { reads, records, leadership, .. } = &*self.context;
        let desired = records.known().get(&self.sale)?.clone();
        let previous = self.previous.take().filter(|previous| previous.is_of(&desired.sale));
        let shards = if desired.sale.config.is_removed() { &[] } else { desired.sale.shards() };
        let calls: Vec<_> = shards.iter().map(|shard| ReadLevel { shard }).collect();
        let (when, levels) = ((Instant::now(), now()), reads.poll_all(&calls).await);
        let moves = previous.as_ref().map_or_else(Vec::new, |previous| moves(&previous.levels, &levels));
        let observation = Observation::of(&desired, levels, when, previous.as_ref());
        let report = live(&observation, &moves, self.processes.as_ref(), leadership);
        let taken_at = observation.snapshot.taken_at;
        self.previous = Some(observation);
        Some((taken_at, report))
    }

    async fn refresh_processes(&mut self) {
        if self.processes_read_at.is_none_or(|read_at| read_at.elapsed() >= PRESENCE_PERIOD) {
            self.processes_read_at = Some(Instant::now());
            self.processes = self.context.reads.poll(Presence { update: None }).await.ok();
        }
    }
}
