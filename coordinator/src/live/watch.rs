//! Watching one sale for whoever is looking at it: one task, however many they are, and none while nobody does.

use std::sync::Arc;
use std::time::Duration;

use service::events::{EVENT_PERIOD, EventPublisher, event};
use service::time::now;
use stock::calls::{CallError, Level, ReadLevel};
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
use crate::shard_problem::{ShardProblem, lasting};
use crate::violations::Violations;

/// Longest time without a report: a page that hears nothing for much longer says that it is not live.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// From one look at who is there to the next: as often as they say so.
const PRESENCE_PERIOD: Duration = Duration::from_secs(1);
/// How long it goes on while nobody looks: a page that is loaded anew finds it going.
const LINGER: Duration = Duration::from_secs(5);

/// A sale that is being watched.
pub(super) struct SaleWatch {
    coordinator: Arc<Coordinator>,
    sale: SaleId,
    before: PreviousLook,
    present: Option<ProcessList>,
    asked_at: Option<Instant>,
}

/// What the look before has seen.
#[derive(Default)]
struct PreviousLook {
    levels: Vec<Result<Level, CallError>>,
    snapshot: Option<Snapshot>,
    violations: Violations,
    troubles: Vec<ShardProblem>,
}

impl SaleWatch {
    pub(super) fn new(coordinator: Arc<Coordinator>, sale: SaleId) -> Self {
        Self { coordinator, sale, before: PreviousLook::default(), present: None, asked_at: None }
    }

    /// Tells what changes, until nobody has listened for a while or the sale is not known any more.
    pub(super) async fn tell(mut self, teller: EventPublisher) {
        let keys = SaleKeys::new(&self.sale);
        // What the shards that cannot be read now held when they last could.
        self.before.snapshot = self.coordinator.reads.poll(ReadSnapshot(&keys)).await.ok().flatten();
        let (mut told, mut told_at, mut heard_at) = (None::<LiveState>, Instant::now(), Instant::now());
        let mut ticks = interval(EVENT_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while heard_at.elapsed() < LINGER {
            ticks.tick().await;
            if teller.is_heard() {
                heard_at = Instant::now();
            }
            let Some(report) = self.look().await else { return };
            if told.as_ref() != Some(&report.news) || told_at.elapsed() >= SILENCE_MAX {
                teller.tell(event("live", &report));
                (told, told_at) = (Some(report.news), Instant::now());
            }
        }
    }

    async fn look(&mut self) -> Option<LiveEvent> {
        let coordinator = Arc::clone(&self.coordinator);
        self.ask_who_is_there(&coordinator).await;
        let desired = coordinator.records.known().get(&self.sale)?.clone();
        let calls: Vec<_> = desired.sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
        let (when, levels) = ((Instant::now(), now()), coordinator.reads.poll_all(&calls).await);
        let sight = Observation::of(&desired, levels, when, self.before.snapshot.as_ref());

        let (leader, answered_by) = (coordinator.leadership.leader(), coordinator.leadership.name());
        let report = LiveEvent::of(LiveInput {
            moves: moves(&self.before.levels, &sight.levels),
            violations: sight.found.lasting(self.before.violations),
            troubles: lasting(&sight.troubles, &self.before.troubles),
            present: self.present.as_ref(),
            leader: leader.as_deref(),
            answered_by,
            sight: &sight,
        });
        let Observation { levels, snapshot, found, troubles, .. } = sight;
        self.before = PreviousLook { levels, snapshot: Some(snapshot), violations: found, troubles };
        Some(report)
    }

    async fn ask_who_is_there(&mut self, coordinator: &Coordinator) {
        if self.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= PRESENCE_PERIOD) {
            self.asked_at = Some(Instant::now());
            self.present = coordinator.reads.poll(Presence { word: None }).await.ok();
        }
    }
}
