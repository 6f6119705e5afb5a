//! Puts sales to rest: once a sale is over and its totals are final, it leaves the set of active sales, and no process looks
//! at it any more until an operator changes it.
//!
//! The totals are final when the sale has been over for a while by the clock of each primary, each shard is as recorded, no
//! tokens are in channels, and each shard has confirmed the last snapshot's numbers behind a barrier. A sale that never gets
//! there stays active, so its problem stays visible. Once a second the leader looks at one sale at rest, in turn. One that
//! is not as it was left is active again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rediscluster::CallError;
use service::time::now;
use stock::active::ChangeActiveSales;
use stock::calls::{Level, ReadLevel};
use stock::channels::open_channels;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::snapshot::{Confirm, Confirmed};
use stock::store::{PublishSnapshot, ReadSnapshot};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::Context;
use crate::desired_state::DesiredState;
use crate::failure_log::FailureLog;
use crate::observation::{Observation, Observations};
use crate::plan::plan;
use crate::rounds::{Stop, every};

/// Time between two rounds.
const PERIOD: Duration = Duration::from_secs(1);
/// Most sales that are put to rest in a round. Their shards fit in one pipeline per primary.
const SALES_PER_ROUND: usize = 64;

pub(crate) async fn run(context: &Context, observations: watch::Receiver<Observations>, stop: Stop) {
    let (mut failures, mut settled_since, mut checked) = (FailureLog::default(), BTreeMap::new(), None);
    let round = async || {
        if !context.leadership.leads() || context.records.active().is_none() {
            settled_since.clear();
            return;
        }
        let observations = observations.borrow().clone();
        let settled = settle(context, &observations, &mut settled_since).await;
        let settled = settled.and(activate_lost(context).await).and(check_next(context, &mut checked).await);
        context.log_failure(&mut failures, "sales at rest".into(), settled.as_ref().err());
    };
    every(PERIOD, stop, round).await;
}

/// Puts the sales to rest whose totals are final. `settled_since` is when each sale was first found so in a row, with its
/// record of that time.
async fn settle(
    context: &Context,
    observations: &Observations,
    settled_since: &mut BTreeMap<SaleId, (DesiredState, Instant)>,
) -> Result<(), CallError> {
    let Context { writes, records, timing, .. } = context;
    let Some(active) = records.active() else { return Ok(()) };
    let known = records.known();
    let removed = |id: &&SaleId| known.get(*id).is_some_and(|desired| desired.sale.config.is_removed());
    let mut resting: Vec<SaleId> = active.iter().filter(removed).cloned().collect();

    let settled = observations.iter().filter(|(id, observation)| {
        active.contains(*id) && known.get(*id) == Some(&observation.desired) && observation.is_settled()
    });
    let before = std::mem::take(settled_since);
    settled_since.extend(settled.map(|(id, Observation { desired, observed_at, .. })| {
        let since =
            before.get(id).filter(|(same, _)| same == desired).map_or(*observed_at, |(_, since)| *since);
        (id.clone(), (desired.clone(), since))
    }));
    let is_ripe = |(id, Observation { observed_at, snapshot, .. }): &(&SaleId, &Observation)| {
        let since = settled_since.get(*id).map(|(_, since)| *since);
        since.is_some_and(|since| *observed_at - since >= timing.rest_after) && !snapshot.needs_confirmation()
    };
    let settled: Vec<_> = observations.iter().filter(is_ripe).take(SALES_PER_ROUND).collect();
    let shards = settled.iter().flat_map(|(_, observation)| observation.desired.sale.shards());
    let calls: Vec<_> = shards.map(|shard| Confirm { shard }).collect();
    let mut confirmed =
        if calls.is_empty() { Vec::new() } else { writes.write_all_once(&calls).await }.into_iter();
    let mut last_snapshots = Vec::new();
    for (id, Observation { desired, snapshot, .. }) in settled {
        let answers: Vec<Result<Confirmed, _>> = confirmed.by_ref().take(desired.mint.len()).collect();
        let sold = answers.iter().map(|answer| answer.as_ref().ok().map(|confirmed| confirmed.sold));
        if sold.eq(snapshot.shards.iter().map(|level| Some(level.sold))) {
            last_snapshots.push((SaleKeys::new(id), snapshot));
            resting.push(id.clone());
        }
    }
    if resting.is_empty() {
        return Ok(());
    }
    let calls: Vec<_> =
        last_snapshots.iter().map(|(keys, snapshot)| PublishSnapshot { keys, snapshot }).collect();
    writes.write_all(&calls).await.into_iter().collect::<Result<(), _>>()?;
    writes.write(ChangeActiveSales::Remove(&resting)).await?;
    // An operator who changed a sale before this activated it before this. The record is read afterwards, so each change is
    // seen, or its operator activates the sale again.
    let is_changed = |(id, record): (&SaleId, Result<Option<DesiredState>, _>)| {
        (record.ok().flatten().as_ref() != known.get(id)).then(|| id.clone())
    };
    let changed: Vec<SaleId> =
        resting.iter().zip(records.follow(&resting).await).filter_map(is_changed).collect();
    tracing::info!(sales = resting.len() - changed.len(), "sales are at rest: their totals are final");
    activate(context, &changed).await
}

/// Activates sales that are not over, and are not in the set.
async fn activate_lost(context: &Context) -> Result<(), CallError> {
    let Some(active) = context.records.active() else { return Ok(()) };
    let known = context.records.known();
    let is_lost = |(id, desired): &(&SaleId, &DesiredState)| {
        !active.contains(*id) && !desired.sale.config.is_over(now())
    };
    activate(context, &known.iter().filter(is_lost).map(|(id, _)| id.clone()).collect::<Vec<_>>()).await
}

/// Looks at the sale at rest that follows the one that was checked before.
async fn check_next(context: &Context, checked: &mut Option<SaleId>) -> Result<(), CallError> {
    let Context { reads, records, .. } = context;
    let known = records.known();
    let Some((id, before)) = next_at_rest(context, &known, checked.as_ref()) else {
        *checked = None;
        return Ok(());
    };
    *checked = Some(id.clone());
    let record = records.follow(slice::from_ref(id)).await.pop().transpose()?.flatten();
    let calls: Vec<_> = before.sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
    let when = (Instant::now(), now());
    let observation = Observation::of(before, reads.poll_all(&calls).await, when, None);
    // An unreachable shard tells nothing. The sale's turn comes again.
    if observation.levels.iter().any(|level| level.as_ref().is_err_and(CallError::is_transient)) {
        return Ok(());
    }
    let published = reads.poll(ReadSnapshot(&SaleKeys::new(id))).await?;
    let is_published = published.is_some_and(|published| published.sold == observation.snapshot.sold);
    if record.as_ref() == Some(before) && is_published && observation.is_settled() {
        return Ok(());
    }
    tracing::warn!(sale.id = %id, "a sale at rest is not as it was left: it is observed again");
    activate(context, slice::from_ref(id)).await
}

fn next_at_rest<'a>(
    context: &Context,
    known: &'a Arc<BTreeMap<SaleId, DesiredState>>,
    checked: Option<&SaleId>,
) -> Option<(&'a SaleId, &'a DesiredState)> {
    let after = checked.map_or(Bound::Unbounded, Bound::Excluded);
    let is_at_rest = |(_, desired): &(&SaleId, &DesiredState)| {
        !desired.sale.config.is_removed() && context.records.is_at_rest(&desired.sale)
    };
    known.range::<SaleId, _>((after, Bound::Unbounded)).find(is_at_rest)
}

async fn activate(context: &Context, sales: &[SaleId]) -> Result<(), CallError> {
    if sales.is_empty() { Ok(()) } else { context.writes.write(ChangeActiveSales::Add(sales)).await }
}

impl Observation {
    /// Returns true if the sale is over and its numbers can be confirmed as final: each shard was read and is as recorded, and
    /// no tokens are in channels.
    fn is_settled(&self) -> bool {
        let Self { desired, levels, snapshot, problems, current_violations, .. } = self;
        let config = &*desired.sale.config;
        let is_over = |level: &Result<Level, _>| level.as_ref().is_ok_and(|level| config.is_over(level.at));
        levels.iter().all(is_over)
            && problems.is_empty()
            && current_violations.is_none()
            && snapshot.stock + snapshot.sold == snapshot.total
            && open_channels(levels).next().is_none()
            && plan(desired, levels, &[]).is_empty()
    }
}
