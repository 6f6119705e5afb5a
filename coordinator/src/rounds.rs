//! What a coordinator does by itself, again and again: read the records and keep the cluster's map fresh; and, while
//! it leads, look at the shards and publish what it saw, mend what is not as recorded, and rebalance.
//!
//! A loop each, so that none waits for another: a barrier that waits for a dead replica delays no snapshot.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Shared, join_all};
use service::time::now;
use stock::calls::{CallError, Level, ReadLevel};
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::EpochMs;
use stock::snapshot::{Snapshot, confirm_sold_out};
use stock::store::PublishSnapshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::carry_out::carry_out;
use crate::channels::OpenChannels;
use crate::coordinator::Coordinator;
use crate::desired::Desired;
use crate::metrics;
use crate::news::News;
use crate::plan::plan;
use crate::rebalancing::Rebalancing;
use crate::trouble::{Trouble, troubles};
use crate::violations::{Violations, violations};

/// Longest time between two looks at the cluster's map. A failover is noticed by its errors, sooner.
const MAP_AGE_MAX: Duration = Duration::from_millis(500);
/// How often it is asked whether the map is in doubt.
const MAP_CHECK: Duration = Duration::from_millis(100);
/// How often it is asked whether every primary has the function library. Nodes may not be allowed to load it, and call
/// primaries without any shard, too: one that has just joined, one that somebody emptied.
const LIBRARY_CHECK: Duration = Duration::from_secs(1);

/// A sale as it was seen in a round.
pub struct Sight {
    /// When the look at it began.
    pub seen_at: Instant,
    /// What was recorded then.
    pub desired: Desired,
    /// What its shards held.
    pub levels: Vec<Result<Level, CallError>>,
    /// The snapshot of it.
    pub snapshot: Snapshot,
    /// What was wrong.
    pub troubles: Vec<Trouble>,
    /// When the look was half done, by the coordinator's own clock.
    pub seen_at_ms: EpochMs,
    /// What broke the promise, and was broken at the look before, too.
    pub violations: Violations,
    /// The same by this look alone.
    pub found: Violations,
}

impl Coordinator {
    /// Keeps all sales as they are recorded, until `stop` completes and the round is finished.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let (period, stop) = (self.pace.snapshot_period, stop.shared());
        let (mut records_news, mut look_news) = (News::default(), News::default());
        let (mut channels, mut map_seen) = (HashMap::new(), Instant::now());
        tokio::join!(
            self.seek_lease(stop.clone()),
            self.attend(stop.clone()),
            every(period, stop.clone(), async || self.follow_records(&mut records_news).await),
            every(period, stop.clone(), async || self.look(&mut look_news).await),
            every(period, stop.clone(), async || self.confirm_sold_out().await),
            every(period, stop.clone(), async || self.mend(&mut channels).await),
            self.keep_rebalancing(stop.clone()),
            every(MAP_CHECK, stop.clone(), async || self.follow_map(&mut map_seen).await),
            every(LIBRARY_CHECK, stop.clone(), async || self.keep_library().await),
        );
    }

    /// The sales as they were last seen; none before the first round, and none for who does not lead.
    pub fn sights(&self) -> Arc<BTreeMap<SaleId, Sight>> {
        self.sights.load_full()
    }

    async fn keep_rebalancing<S: Future<Output = ()>>(&self, stop: Shared<S>) {
        if let Some(period) = self.pace.rebalance_period {
            let mut rebalancing = Rebalancing::default();
            every(period, stop, async || self.rebalance(&mut rebalancing).await).await;
        }
    }

    async fn follow_records(&self, news: &mut News) {
        let listed = self.records.all(&self.reads).await;
        self.heed(news, "list of sales".into(), listed.as_ref().err());
        let mut known = (*self.known.load_full()).clone();
        for (id, record) in listed.into_iter().flatten() {
            self.heed(news, format!("record of sale {id}"), record.as_ref().err());
            if let Ok(Some(desired)) = record {
                known.insert(id, desired);
            }
        }
        self.known.store(known.into());
    }

    /// One pipeline a primary for all sales. A shard that does not answer is looked at in the next round.
    async fn look(&self, news: &mut News) {
        if !self.leadership.leads() {
            self.sights.store(Arc::default());
            return;
        }
        let (seen_at, asked_at_ms, known) = (Instant::now(), now(), self.known.load_full());
        let shards = known.values().flat_map(|desired| desired.sale.shards());
        let calls: Vec<_> = shards.map(|shard| ReadLevel { shard }).collect();
        let mut levels = self.reads.poll_all(&calls).await.into_iter();
        let when = (seen_at, asked_at_ms.midpoint(now()));

        let before = self.sights.load_full();
        let sold_out = self.sold_out.load_full();
        let sight = |(id, desired): (&SaleId, &Desired)| {
            let levels = levels.by_ref().take(desired.sale.shards().len()).collect();
            let seen_before = before.get(id);
            let previous = seen_before.map(|sight| &sight.snapshot);
            let mut sight = Sight::of(desired, levels, when, previous);
            sight.violations = sight.found.lasting(seen_before.map(|sight| sight.found).unwrap_or_default());
            sight.snapshot.sold_out |= sold_out.get(id).is_some_and(|&units| units >= sight.snapshot.total);
            (id.clone(), sight)
        };
        let sights: BTreeMap<SaleId, Sight> = known.iter().map(sight).collect();
        self.publish(&sights, news).await;
        metrics::looked(seen_at.elapsed());
        for (id, sight) in &sights {
            sight
                .levels
                .iter()
                .filter_map(|level| level.as_ref().err())
                .for_each(|error| self.doubt_map(error));
            log_news(id, before.get(id).map_or(&[], |sight| &sight.troubles), &sight.troubles);
        }
        self.sights.store(sights.into());
    }

    async fn publish(&self, sights: &BTreeMap<SaleId, Sight>, news: &mut News) {
        let keys: Vec<SaleKeys> = sights.keys().map(SaleKeys::new).collect();
        let snapshots = sights.values().map(|sight| &sight.snapshot);
        let calls: Vec<_> =
            keys.iter().zip(snapshots).map(|(keys, snapshot)| PublishSnapshot { keys, snapshot }).collect();
        for (id, published) in sights.keys().zip(self.reads.poll_all(&calls).await) {
            self.heed(news, format!("snapshot of sale {id}"), published.err().as_ref());
        }
    }

    /// Nodes send buyers away for good once a snapshot says that all is sold: so it must be true whatever fails.
    async fn confirm_sold_out(&self) {
        for (id, sight) in self.sights.load_full().iter() {
            let total = sight.snapshot.total;
            if sight.snapshot.is_to_be_confirmed()
                && confirm_sold_out(&self.writes, &sight.desired.sale).await
            {
                tracing::info!(sale.id = %id, sale.units = total, "sold out");
                let mut sold_out = (*self.sold_out.load_full()).clone();
                sold_out.insert(id.clone(), total);
                self.sold_out.store(sold_out.into());
            }
        }
    }

    async fn mend(&self, channels: &mut HashMap<SaleId, OpenChannels>) {
        if !self.leadership.leads() {
            channels.clear();
            self.stalled_since.store(Arc::default());
            return;
        }
        let (sights, now) = (self.sights.load_full(), Instant::now());
        let plans: Vec<_> = sights
            .iter()
            .map(|(id, Sight { desired, levels, .. })| {
                let channels = channels.entry(id.clone()).or_default();
                channels.observe(levels, now);
                let stalled = channels.unmoved_for(self.pace.redrive_after, now);
                stalled.iter().for_each(|&channel| channels.attend_to(channel, now));
                (desired, plan(desired, levels, &stalled))
            })
            .collect();
        let stalled =
            channels.iter().filter_map(|(id, channels)| Some((id.clone(), channels.stalled_since()?)));
        self.stalled_since.store(Arc::new(stalled.collect()));
        let work = plans.iter().filter(|(_, actions)| !actions.is_empty());
        join_all(work.map(|(desired, actions)| carry_out(&self.writes, &self.records, desired, actions)))
            .await;
    }

    async fn follow_map(&self, seen: &mut Instant) {
        if !self.map_doubted.swap(false, Ordering::Relaxed) && seen.elapsed() < MAP_AGE_MAX {
            return;
        }
        *seen = Instant::now();
        let (reads, writes) = tokio::join!(self.reads.refresh(), self.writes.refresh());
        if let Err(error) = reads.and(writes) {
            tracing::debug!(%error, "the cluster's map could not be refreshed");
        }
    }

    async fn keep_library(&self) {
        // A primary that is away is asked again soon; whoever misses the library there says so.
        if let Err(error) = self.reads.load_library().await {
            tracing::debug!(%error, "function library not looked for everywhere");
        }
    }

    pub(crate) fn heed(&self, news: &mut News, what: String, error: Option<&CallError>) {
        error.into_iter().for_each(|error| self.doubt_map(error));
        news.take_in(what, error);
    }

    fn doubt_map(&self, error: &CallError) {
        if error.is_transient() {
            self.map_doubted.store(true, Ordering::Relaxed);
        }
    }
}

impl Sight {
    /// What these levels show, looked at then: by the clock that only runs on, and by the one on the wall. `previous` has
    /// the numbers of shards that cannot be read.
    pub(crate) fn of(
        desired: &Desired,
        levels: Vec<Result<Level, CallError>>,
        (seen_at, seen_at_ms): (Instant, EpochMs),
        previous: Option<&Snapshot>,
    ) -> Self {
        Self {
            seen_at_ms,
            found: violations(desired, &levels),
            violations: Violations::default(),
            seen_at,
            snapshot: Snapshot::of(&desired.sale, &levels, previous),
            troubles: troubles(desired, &levels),
            desired: desired.clone(),
            levels,
        }
    }
}

/// Logs a trouble when it comes and when it goes, not in every round.
fn log_news(id: &SaleId, before: &[Trouble], now: &[Trouble]) {
    let is_new = |trouble: &&Trouble| !before.iter().any(|known| known.is_like(trouble));
    for Trouble { shard, kind, detail } in now.iter().filter(is_new) {
        if kind.is_lasting() {
            tracing::error!(sale.id = %id, shard.id = %shard, "{detail}");
        } else {
            tracing::warn!(sale.id = %id, shard.id = %shard, "cannot be read: {detail}");
        }
    }
    let is_over = |trouble: &&Trouble| !now.iter().any(|known| known.is_like(trouble));
    for Trouble { shard, .. } in before.iter().filter(is_over) {
        tracing::info!(sale.id = %id, shard.id = %shard, "the trouble is over");
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
