//! Observes all sales that are not at rest while this coordinator leads, and publishes their snapshots. The other
//! controllers act on its observations.

use std::collections::BTreeMap;
use std::sync::Arc;

use service::time::now;
use stock::calls::ReadLevel;
use stock::ids::SaleId;
use stock::layout::{Fingerprint, SaleKeys};
use stock::snapshot::confirm_sold_out;
use stock::store::PublishSnapshot;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::Context;
use crate::desired_state::DesiredState;
use crate::failure_log::FailureLog;
use crate::metrics;
use crate::observation::{Observation, Observations};
use crate::rounds::{Stop, every, on_change};
use crate::shard_problem::ShardProblem;

/// Observes all sales.
pub(crate) struct Observer {
    context: Arc<Context>,
    observations: watch::Sender<Observations>,
    /// The total of each sale for which it is confirmed that all units are sold.
    sold_out: watch::Sender<BTreeMap<Fingerprint, u64>>,
}

impl Observer {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, observations: watch::Sender::default(), sold_out: watch::Sender::default() }
    }

    pub(crate) fn latest(&self) -> Observations {
        self.observations.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Observations> {
        self.observations.subscribe()
    }

    /// A barrier that waits for a dead replica delays no snapshot, so sold-out sales are confirmed by a separate loop.
    pub(crate) async fn run(&self, stop: Stop) {
        let mut failures = FailureLog::default();
        let period = self.context.timing.snapshot_period;
        tokio::join!(
            every(period, stop.clone(), async || self.observe(&mut failures).await),
            on_change(self.subscribe(), stop, async |observations| self.confirm(&observations).await),
        );
    }

    /// Observes all sales with one pipeline per primary. A shard that does not answer is read again in the next round.
    async fn observe(&self, failures: &mut FailureLog) {
        let Context { leadership, records, reads, .. } = &*self.context;
        if !leadership.leads() {
            self.observations.send_replace(Observations::default());
            return;
        }
        let (observed_at, started_at_ms, known) = (Instant::now(), now(), records.observed());
        let shards = known.iter().flat_map(|(_, desired)| desired.sale.shards());
        let calls: Vec<_> = shards.map(|shard| ReadLevel { shard }).collect();
        let mut levels = reads.poll_all(&calls).await.into_iter();
        let when = (observed_at, started_at_ms.midpoint(now()));

        let (before, sold_out) = (self.latest(), self.sold_out.borrow().clone());
        let observation = |(id, desired): &(SaleId, DesiredState)| {
            let levels = levels.by_ref().take(desired.sale.shards().len()).collect();
            let mut seen = Observation::of(desired, levels, when, before.get(id));
            let units = sold_out.get(desired.sale.fingerprint());
            seen.snapshot.sold_out |= units.is_some_and(|&units| units >= seen.snapshot.total);
            (id.clone(), seen)
        };
        let observations: BTreeMap<SaleId, Observation> = known.iter().map(observation).collect();
        self.publish(&observations, failures).await;
        metrics::snapshot_taken(observed_at.elapsed());
        for (id, observation) in &observations {
            let failed = observation.levels.iter().filter_map(|level| level.as_ref().err());
            failed.for_each(|error| self.context.suspect_map(error));
            let problems_before = before.get(id).map_or(&[][..], |before| &before.persistent_problems);
            log_changes(id, problems_before, &observation.persistent_problems);
        }
        self.observations.send_replace(observations.into());
    }

    async fn publish(&self, observations: &BTreeMap<SaleId, Observation>, failures: &mut FailureLog) {
        let keys: Vec<SaleKeys> = observations.keys().map(SaleKeys::new).collect();
        let snapshots = observations.values().map(|observation| &observation.snapshot);
        let calls: Vec<_> =
            keys.iter().zip(snapshots).map(|(keys, snapshot)| PublishSnapshot { keys, snapshot }).collect();
        for (id, published) in observations.keys().zip(self.context.reads.poll_all(&calls).await) {
            self.context.log_failure(failures, format!("snapshot of sale {id}"), published.err().as_ref());
        }
    }

    /// Nodes refuse buyers for good once a snapshot says that all units are sold. So this must stay true after any
    /// failure.
    async fn confirm(&self, observations: &Observations) {
        for (id, Observation { desired, snapshot, .. }) in observations.iter() {
            if snapshot.needs_confirmation() && confirm_sold_out(&self.context.writes, &desired.sale).await {
                tracing::info!(sale.id = %id, sale.units = snapshot.total, "sold out");
                let sale = desired.sale.fingerprint().clone();
                self.sold_out.send_modify(|sold_out| {
                    sold_out.insert(sale, snapshot.total);
                });
            }
        }
    }
}

/// Logs a problem when it starts and when it ends, not in every round.
fn log_changes(id: &SaleId, before: &[ShardProblem], now: &[ShardProblem]) {
    let is_new = |problem: &&ShardProblem| !before.iter().any(|known| known.is_like(problem));
    for ShardProblem { shard, kind, detail } in now.iter().filter(is_new) {
        if kind.is_violation() {
            tracing::error!(sale.id = %id, shard.id = %shard, "{detail}");
        } else {
            tracing::warn!(sale.id = %id, shard.id = %shard, "{detail}");
        }
    }
    let is_over = |problem: &&ShardProblem| !now.iter().any(|known| known.is_like(problem));
    for ShardProblem { shard, .. } in before.iter().filter(is_over) {
        tracing::info!(sale.id = %id, shard.id = %shard, "the problem is over");
    }
}
