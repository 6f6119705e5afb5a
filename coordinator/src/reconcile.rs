//! The background loops of a coordinator. All coordinators read the records and refresh the cluster's map. The leader
//! also observes the shards, publishes snapshots, repairs what is not as recorded, and rebalances.
//!
//! Each task has its own loop, so that none waits for another: a barrier that waits for a dead replica delays no
//! snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Shared, join_all};
use rediscluster::{CallError, EpochMs};
use service::time::now;
use stock::calls::{Level, ReadLevel};
use stock::channels::OpenChannels;
use stock::ids::SaleId;
use stock::layout::{Fingerprint, SaleKeys};
use stock::search::recorded_sales;
use stock::snapshot::{Snapshot, confirm_sold_out};
use stock::store::{AddSaleToList, ListSales, PublishSnapshot, RestoreSaleList};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::apply::apply;
use crate::coordinator::{Coordinator, CoordinatorError};
use crate::desired_state::DesiredState;
use crate::failure_log::FailureLog;
use crate::metrics;
use crate::plan::plan;
use crate::rebalancing::Rebalancing;
use crate::replication::ReplicationWatch;
use crate::shard_problem::{ShardProblem, persistent, problems};
use crate::violations::{Violations, violations};

/// Longest time between two refreshes of the cluster's map. A failover is noticed earlier, by its errors.
const MAP_AGE_MAX: Duration = Duration::from_millis(500);
/// Time between two checks whether the map is suspect.
const MAP_CHECK: Duration = Duration::from_millis(100);
/// Time between two checks whether the list of sales is lost.
const LIST_CHECK: Duration = Duration::from_millis(100);
/// Time between two searches for sales that the list does not name. A sale is only missing from the list if the
/// coordinator that created it died before it was listed.
const SEARCH_PERIOD: Duration = Duration::from_secs(10);
/// The same after a failed search. Restoring a lost list is tried again at every check.
const SEARCH_RETRY: Duration = Duration::from_secs(1);
/// Time between two checks that every primary has the function library. Nodes may not be allowed to load it, and they
/// also call primaries without any shard, such as one that has just joined or was flushed.
const LIBRARY_CHECK: Duration = Duration::from_secs(1);
/// Time between two checks of the replicas of each primary.
const REPLICATION_CHECK: Duration = Duration::from_secs(1);

/// An observation of a sale in one round.
pub struct Observation {
    /// When it began.
    pub observed_at: Instant,
    /// The record at that time.
    pub desired: DesiredState,
    /// The levels of the shards.
    pub levels: Vec<Result<Level, CallError>>,
    /// The snapshot of these levels.
    pub snapshot: Snapshot,
    /// Problems of the shards.
    pub problems: Vec<ShardProblem>,
    /// Problems that the previous observation has found too.
    pub persistent_problems: Vec<ShardProblem>,
    /// The middle of the observation, by the coordinator's wall clock.
    pub observed_at_ms: EpochMs,
    /// Violations that the previous observation has found too.
    pub violations: Violations,
    /// Violations in this observation alone.
    pub current_violations: Violations,
}

impl Coordinator {
    /// Runs all loops until `stop` completes and the current rounds are finished.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let (period, stop) = (self.timing.snapshot_period, stop.shared());
        let (mut record_failures, mut observe_failures) = (RecordFailures::default(), FailureLog::default());
        let (mut list_log, mut search_at) = (FailureLog::default(), Instant::now());
        let (mut channels, mut map_refreshed_at) = (HashMap::new(), Instant::now());
        let mut replication = ReplicationWatch::default();
        tokio::join!(
            self.seek_lease(stop.clone()),
            self.announce_presence(stop.clone()),
            every(period, stop.clone(), async || self.follow_records(&mut record_failures).await),
            every(LIST_CHECK, stop.clone(), async || self.maintain_list(&mut list_log, &mut search_at).await),
            every(period, stop.clone(), async || self.observe(&mut observe_failures).await),
            every(period, stop.clone(), async || self.confirm_sold_out().await),
            every(period, stop.clone(), async || self.repair(&mut channels).await),
            self.run_rebalancing(stop.clone()),
            every(MAP_CHECK, stop.clone(), async || self.follow_map(&mut map_refreshed_at).await),
            every(LIBRARY_CHECK, stop.clone(), async || self.ensure_library().await),
            every(REPLICATION_CHECK, stop.clone(), async || self.check_replication(&mut replication).await),
        );
    }

    /// The latest observation of each sale. Empty before the first round, and on followers.
    pub fn observations(&self) -> Arc<BTreeMap<SaleId, Observation>> {
        self.observations.load_full()
    }

    async fn run_rebalancing<S: Future<Output = ()>>(&self, stop: Shared<S>) {
        if let Some(period) = self.timing.rebalance_period {
            let mut rebalancing = Rebalancing::default();
            every(period, stop, async || self.rebalance(&mut rebalancing).await).await;
        }
    }

    /// Follows the records of the sales in the list, and of those that are known already, so that a lost list does not
    /// remove sales.
    async fn follow_records(&self, failures: &mut RecordFailures) {
        let listed = self.reads.read(ListSales).await;
        self.log_failure(&mut failures.calls, "list of sales".into(), listed.as_ref().err());
        let mut ids: BTreeSet<SaleId> = self.records.known().keys().cloned().collect();
        if let Ok(listed) = listed {
            let is_whole = listed.as_ref().is_some_and(|listed| ids.iter().all(|id| listed.contains(id)));
            self.list_is_lost.store(!is_whole, Ordering::Relaxed);
            ids.extend(listed.into_iter().flatten());
        }
        let ids: Vec<SaleId> = ids.into_iter().collect();
        let records = self.records.follow(&self.reads, &self.writes, &ids).await;
        for (id, record) in ids.iter().zip(records) {
            self.log_failure(&mut failures.calls, format!("record of sale {id}"), record.as_ref().err());
            failures.log_lost(id, matches!(record, Ok(None)));
        }
    }

    /// Restores the list of sales from the records: at the start, when it does not name all known sales, and from time
    /// to time.
    async fn maintain_list(&self, failures: &mut FailureLog, search_at: &mut Instant) {
        let is_due = *search_at <= Instant::now() || self.list_is_lost.swap(false, Ordering::Relaxed);
        if !self.leadership.leads() || !is_due {
            return;
        }
        let restored = self.restore_list().await;
        self.log_failure(failures, "search for sales that are not listed".into(), restored.as_ref().err());
        *search_at = Instant::now() + if restored.is_ok() { SEARCH_PERIOD } else { SEARCH_RETRY };
    }

    /// A complete list makes nodes answer 404 for all other names. So the list is marked complete only when every
    /// existing record was found, and is known to be durable.
    async fn restore_list(&self) -> Result<(), CallError> {
        let found = recorded_sales(&self.reads).await?;
        let records = self.records.follow(&self.reads, &self.writes, &found).await;
        let sales: Vec<SaleId> = self.records.known().keys().cloned().collect();
        match records.into_iter().find_map(Result::err) {
            None => self.writes.write(RestoreSaleList(&sales)).await,
            Some(error) => {
                self.writes.write_all(&sales.iter().map(AddSaleToList).collect::<Vec<_>>()).await;
                Err(error)
            }
        }
    }

    /// Observes all sales with one pipeline per primary. A shard that does not answer is read again in the next round.
    async fn observe(&self, failures: &mut FailureLog) {
        if !self.leadership.leads() {
            self.observations.store(Arc::default());
            return;
        }
        let (observed_at, started_at_ms, known) = (Instant::now(), now(), self.records.known());
        let shards = known.values().flat_map(|desired| desired.sale.shards());
        let calls: Vec<_> = shards.map(|shard| ReadLevel { shard }).collect();
        let mut levels = self.reads.poll_all(&calls).await.into_iter();
        let when = (observed_at, started_at_ms.midpoint(now()));

        let before = self.observations.load_full();
        let sold_out = self.sold_out.load_full();
        let observation = |(id, desired): (&SaleId, &DesiredState)| {
            let levels = levels.by_ref().take(desired.sale.shards().len()).collect();
            let previous = before
                .get(id)
                .filter(|before| before.desired.sale.fingerprint() == desired.sale.fingerprint());
            let mut seen = Observation::of(desired, levels, when, previous.map(|before| &before.snapshot));
            let violations = previous.map(|before| before.current_violations).unwrap_or_default();
            seen.violations = seen.current_violations.persistent(violations);
            seen.persistent_problems =
                persistent(&seen.problems, previous.map_or(&[], |before| &before.problems));
            let units = sold_out.get(desired.sale.fingerprint());
            seen.snapshot.sold_out |= units.is_some_and(|&units| units >= seen.snapshot.total);
            (id.clone(), seen)
        };
        let observations: BTreeMap<SaleId, Observation> = known.iter().map(observation).collect();
        self.publish(&observations, failures).await;
        metrics::snapshot_taken(observed_at.elapsed());
        for (id, observation) in &observations {
            observation
                .levels
                .iter()
                .filter_map(|level| level.as_ref().err())
                .for_each(|error| self.suspect_map(error));
            log_changes(
                id,
                before.get(id).map_or(&[], |observation| &observation.persistent_problems),
                &observation.persistent_problems,
            );
        }
        self.observations.store(observations.into());
    }

    async fn publish(&self, observations: &BTreeMap<SaleId, Observation>, failures: &mut FailureLog) {
        let keys: Vec<SaleKeys> = observations.keys().map(SaleKeys::new).collect();
        let snapshots = observations.values().map(|observation| &observation.snapshot);
        let calls: Vec<_> =
            keys.iter().zip(snapshots).map(|(keys, snapshot)| PublishSnapshot { keys, snapshot }).collect();
        for (id, published) in observations.keys().zip(self.reads.poll_all(&calls).await) {
            self.log_failure(failures, format!("snapshot of sale {id}"), published.err().as_ref());
        }
    }

    /// Nodes refuse buyers for good once a snapshot says that all units are sold. So this must stay true after any
    /// failure.
    async fn confirm_sold_out(&self) {
        for (id, observation) in self.observations.load_full().iter() {
            let total = observation.snapshot.total;
            if observation.snapshot.needs_confirmation()
                && confirm_sold_out(&self.writes, &observation.desired.sale).await
            {
                tracing::info!(sale.id = %id, sale.units = total, "sold out");
                let mut sold_out = (*self.sold_out.load_full()).clone();
                sold_out.insert(observation.desired.sale.fingerprint().clone(), total);
                self.sold_out.store(sold_out.into());
            }
        }
    }

    async fn repair(&self, channels: &mut HashMap<Fingerprint, OpenChannels>) {
        if !self.leadership.leads() {
            channels.clear();
            self.stalled_since.store(Arc::default());
            return;
        }
        let (observations, now) = (self.observations.load_full(), Instant::now());
        let plans: Vec<_> = observations
            .values()
            .map(|Observation { desired, levels, .. }| {
                let channels = channels.entry(desired.sale.fingerprint().clone()).or_default();
                channels.observe(levels, now);
                let stalled = channels.stalled_for(self.timing.redrive_after, now);
                stalled.iter().for_each(|&channel| channels.restart_wait(channel, now));
                (desired, plan(desired, levels, &stalled))
            })
            .collect();
        let stalled =
            channels.iter().filter_map(|(sale, channels)| Some((sale.clone(), channels.stalled_since()?)));
        self.stalled_since.store(Arc::new(stalled.collect()));
        let work = plans.iter().filter(|(_, steps)| !steps.is_empty());
        join_all(work.map(|(desired, steps)| apply(&self.writes, &self.records, desired, steps))).await;
    }

    async fn follow_map(&self, refreshed_at: &mut Instant) {
        if !self.map_is_suspect.swap(false, Ordering::Relaxed) && refreshed_at.elapsed() < MAP_AGE_MAX {
            return;
        }
        *refreshed_at = Instant::now();
        let (reads, writes) = tokio::join!(self.reads.refresh(), self.writes.refresh());
        if let Err(error) = reads.and(writes) {
            tracing::debug!(%error, "the cluster's map could not be refreshed");
        }
    }

    async fn ensure_library(&self) {
        // An unreachable primary is asked again soon. A call that misses the library there reports an error.
        if let Err(error) = self.reads.load_library().await {
            tracing::debug!(%error, "function library not checked on every primary");
        }
    }

    pub(crate) fn log_failure(&self, failures: &mut FailureLog, what: String, error: Option<&CallError>) {
        error.into_iter().for_each(|error| self.suspect_map(error));
        failures.record(what, error);
    }

    fn suspect_map(&self, error: &CallError) {
        if error.is_transient() {
            self.map_is_suspect.store(true, Ordering::Relaxed);
        }
    }
}

impl Observation {
    /// The observation of these levels at this time, by the monotonic clock and by the wall clock. `previous` has the
    /// numbers of shards that cannot be read.
    pub(crate) fn of(
        desired: &DesiredState,
        levels: Vec<Result<Level, CallError>>,
        (observed_at, observed_at_ms): (Instant, EpochMs),
        previous: Option<&Snapshot>,
    ) -> Self {
        Self {
            observed_at_ms,
            current_violations: violations(desired, &levels),
            violations: Violations::default(),
            observed_at,
            snapshot: Snapshot::of(&desired.sale, &levels, previous),
            problems: problems(desired, &levels),
            persistent_problems: Vec::new(),
            desired: desired.clone(),
            levels,
        }
    }
}

/// The failures of records that were logged.
#[derive(Default)]
struct RecordFailures {
    calls: FailureLog,
    lost: BTreeSet<SaleId>,
}

impl RecordFailures {
    fn log_lost(&mut self, id: &SaleId, is_lost: bool) {
        if is_lost && self.lost.insert(id.clone()) {
            tracing::error!(sale.id = %id, "{}", CoordinatorError::RecordLost(id.to_string()));
        } else if !is_lost && self.lost.remove(id) {
            tracing::info!(sale.id = %id, "the record exists again");
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

async fn every<S>(period: Duration, stop: Shared<S>, mut round: impl AsyncFnMut())
where
    S: Future<Output = ()>,
{
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.clone() => return,
            _ = ticks.tick() => round().await,
        }
    }
}
