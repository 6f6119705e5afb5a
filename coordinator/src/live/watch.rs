//! Observes one sale for all of its viewers: one task per sale, and none without viewers.

use std::sync::Arc;
use std::time::Duration;

use rediscluster::CallError;
use service::events::{EVENT_PERIOD, EventPublisher, event};
use service::time::now;
use stock::calls::{Level, ReadLevel};
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::presence::{Presence, ProcessList};
use stock::snapshot::Snapshot;
use stock::store::ReadSnapshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::moves::moves;
use super::report::{LiveEvent, LiveInput, LiveState};
use crate::coordinator::Coordinator;
use crate::reconcile::Observation;
use crate::shard_problem::{ShardProblem, persistent};
use crate::violations::Violations;

/// Longest time without a report. The page shows that it is not live when it receives nothing for much longer.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// Time between two reads of the list of processes, which is as often as they announce themselves.
const PRESENCE_PERIOD: Duration = Duration::from_secs(1);
/// How long the task continues without viewers. A page that is reloaded finds it still running.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A sale that has viewers.
pub(super) struct SaleWatch {
    coordinator: Arc<Coordinator>,
    sale: SaleId,
    previous: PreviousLook,
    processes: Option<ProcessList>,
    processes_read_at: Option<Instant>,
}

/// The previous observation.
#[derive(Default)]
struct PreviousLook {
    levels: Vec<Result<Level, CallError>>,
    snapshot: Option<Snapshot>,
    violations: Violations,
    problems: Vec<ShardProblem>,
}

impl SaleWatch {
    pub(super) fn new(coordinator: Arc<Coordinator>, sale: SaleId) -> Self {
        Self {
            coordinator,
            sale,
            previous: PreviousLook::default(),
            processes: None,
            processes_read_at: None,
        }
    }

    /// Publishes changes until there were no viewers for a while, or the sale is no longer known.
    pub(super) async fn run(mut self, publisher: EventPublisher) {
        let keys = SaleKeys::new(&self.sale);
        // The last known levels of shards that cannot be read now.
        self.previous.snapshot = self.coordinator.reads.poll(ReadSnapshot(&keys)).await.ok().flatten();
        let (mut sent, mut sent_at, mut watched_at) = (None::<LiveState>, Instant::now(), Instant::now());
        let mut ticks = interval(EVENT_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while watched_at.elapsed() < IDLE_MAX {
            ticks.tick().await;
            if publisher.has_listeners() {
                watched_at = Instant::now();
            }
            let Some(report) = self.observe().await else { return };
            if sent.as_ref() != Some(&report.state) || sent_at.elapsed() >= SILENCE_MAX {
                publisher.publish(event("live", &report));
                (sent, sent_at) = (Some(report.state), Instant::now());
            }
        }
    }

    async fn observe(&mut self) -> Option<LiveEvent> {
        let coordinator = Arc::clone(&self.coordinator);
        self.refresh_processes(&coordinator).await;
        let desired = coordinator.records.known().get(&self.sale)?.clone();
        if self.previous.snapshot.as_ref().is_some_and(|before| !before.is_of(&desired.sale)) {
            self.previous = PreviousLook::default();
        }
        let calls: Vec<_> = desired.sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
        let (when, levels) = ((Instant::now(), now()), coordinator.reads.poll_all(&calls).await);
        let observation = Observation::of(&desired, levels, when, self.previous.snapshot.as_ref());

        let (leader, answered_by) = (coordinator.leadership.leader(), coordinator.leadership.name());
        let report = LiveEvent::of(LiveInput {
            moves: moves(&self.previous.levels, &observation.levels),
            violations: observation.current_violations.persistent(self.previous.violations),
            problems: persistent(&observation.problems, &self.previous.problems),
            processes: self.processes.as_ref(),
            leader: leader.as_deref(),
            answered_by,
            observation: &observation,
        });
        let Observation { levels, snapshot, current_violations, problems, .. } = observation;
        self.previous =
            PreviousLook { levels, snapshot: Some(snapshot), violations: current_violations, problems };
        Some(report)
    }

    async fn refresh_processes(&mut self, coordinator: &Coordinator) {
        if self
            .processes_read_at
            .is_none_or(|processes_read_at| processes_read_at.elapsed() >= PRESENCE_PERIOD)
        {
            self.processes_read_at = Some(Instant::now());
            self.processes = coordinator.reads.poll(Presence { update: None }).await.ok();
        }
    }
}
