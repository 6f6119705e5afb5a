//! Follows the records of all sales, on every coordinator. The leader also restores the list of sales from them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rediscluster::CallError;
use stock::active::{ChangeActiveSales, ListActiveSales};
use stock::ids::SaleId;
use stock::search::recorded_sales;
use stock::store::{AddSaleToList, ListSales, RestoreSaleList};
use tokio::time::Instant;

use crate::context::Context;
use crate::failure_log::FailureLog;
use crate::operations::OperationError;
use crate::rounds::{Stop, every};

/// Time between two reads of the list of all sales, while the set of active ones is known. A new sale is found in that set.
const LIST_PERIOD: Duration = Duration::from_secs(1);
/// Time between two checks whether the list of sales is lost.
const LIST_CHECK: Duration = Duration::from_millis(100);
/// Time between two searches for sales that the list does not name. A sale is only missing from the list if the
/// coordinator that created it died before it was listed.
const SEARCH_PERIOD: Duration = Duration::from_secs(10);
/// The same after a failed search. Restoring a lost list is tried again at every check.
const SEARCH_RETRY: Duration = Duration::from_secs(1);

/// What was read and logged before.
#[derive(Default)]
struct RecordFollower {
    listed_at: Option<Instant>,
    failures: FailureLog,
    lost: BTreeSet<SaleId>,
}

/// A search waits for barriers, so it has a loop of its own and does not delay the records.
pub(crate) async fn run(context: &Context, stop: Stop) {
    // True if the list was seen not to name all known sales.
    let list_is_lost = AtomicBool::default();
    let mut follower = RecordFollower::default();
    let (mut failures, mut search_at) = (FailureLog::default(), Instant::now());
    tokio::join!(
        every(context.timing.snapshot_period, stop.clone(), async || {
            follower.follow(context, &list_is_lost).await;
        }),
        every(LIST_CHECK, stop, async || {
            let is_due = search_at <= Instant::now() || list_is_lost.swap(false, Ordering::Relaxed);
            if context.leadership.leads() && is_due {
                search_at = Instant::now() + search(context, &mut failures).await;
            }
        }),
    );
}

impl RecordFollower {
    /// Follows the records of all sales that are not at rest, known or listed. A lost list does not remove sales.
    async fn follow(&mut self, context: &Context, list_is_lost: &AtomicBool) {
        let Context { reads, records, .. } = context;
        let active = reads.read(ListActiveSales).await;
        context.log_failure(&mut self.failures, "active sales".into(), active.as_ref().err());
        let mut ids = BTreeSet::new();
        if let Ok(active) = active {
            ids.extend(active.iter().flatten().cloned());
            records.set_active(active);
        }
        let known = records.known();
        if records.active().is_none() || self.listed_at.is_none_or(|at| at.elapsed() >= LIST_PERIOD) {
            self.listed_at = Some(Instant::now());
            let listed = reads.read(ListSales).await;
            context.log_failure(&mut self.failures, "list of sales".into(), listed.as_ref().err());
            if let Ok(listed) = listed {
                let is_whole =
                    listed.as_ref().is_some_and(|listed| known.keys().all(|id| listed.contains(id)));
                list_is_lost.store(!is_whole, Ordering::Relaxed);
                ids.extend(listed.into_iter().flatten().filter(|id| !known.contains_key(id)));
            }
        }
        let followed = known.values().filter(|desired| !records.is_at_rest(&desired.sale));
        ids.extend(followed.map(|desired| desired.sale.id().clone()));
        // The record of an archived sale is final. The search still reads it, at a slower pace.
        ids.retain(|id| known.get(id).is_none_or(|desired| !desired.sale.config.is_removed()));
        let ids: Vec<SaleId> = ids.into_iter().collect();
        for (id, record) in ids.iter().zip(records.follow(&ids).await) {
            context.log_failure(&mut self.failures, format!("record of sale {id}"), record.as_ref().err());
            self.log_lost(id, matches!(record, Ok(None)));
        }
    }

    fn log_lost(&mut self, id: &SaleId, is_lost: bool) {
        if is_lost && self.lost.insert(id.clone()) {
            tracing::error!(sale.id = %id, "{}", OperationError::RecordLost(id.to_string()));
        } else if !is_lost && self.lost.remove(id) {
            tracing::info!(sale.id = %id, "the record exists again");
        }
    }
}

/// Restores the list of sales from the records: at the start, when it does not name all known sales, and from time to
/// time. Returns the time until the next search.
async fn search(context: &Context, failures: &mut FailureLog) -> Duration {
    let restored = restore_list(context).await;
    context.log_failure(failures, "search for sales that are not listed".into(), restored.as_ref().err());
    if restored.is_ok() { SEARCH_PERIOD } else { SEARCH_RETRY }
}

/// A complete list makes nodes answer 404 for all other names. So the list is marked complete only when every existing
/// record was found, and is known to be durable.
async fn restore_list(context: &Context) -> Result<(), CallError> {
    let Context { reads, writes, records, .. } = context;
    let found = recorded_sales(reads).await?;
    let failure = records.follow(&found).await.into_iter().find_map(Result::err);
    let sales: Vec<SaleId> = records.known().keys().cloned().collect();
    match failure {
        None => {
            writes.write(RestoreSaleList(&sales)).await?;
            if reads.read(ListActiveSales).await?.is_none() {
                writes.write(ChangeActiveSales::Restore(&sales)).await?;
            }
            Ok(())
        }
        Some(error) => {
            writes.write_all(&sales.iter().map(AddSaleToList).collect::<Vec<_>>()).await;
            Err(error)
        }
    }
}
