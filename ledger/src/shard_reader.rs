//! Reads the orders of shards that no failover can take back.

use rediscluster::{CallError, Cluster};
use stock::layout::Shard;
use stock::orders::{Order, ReadOrders, ReadProgress};
use stock::sale::Sale;
use stock::snapshot::{Confirm, Confirmed};

/// Entries in one batch. An entry has up to 64 orders, so a batch has up to 4,096: PostgreSQL takes large batches with
/// the least work.
const ENTRIES_PER_BATCH: usize = 64;

/// Reads how far all shards are, without a barrier. One pipeline for each primary.
pub(crate) async fn progress(cluster: &Cluster, sale: &Sale) -> Vec<Result<Confirmed, CallError>> {
    let calls: Vec<ReadProgress<'_>> = sale.shards().iter().map(|shard| ReadProgress { shard }).collect();
    cluster.poll_all(&calls).await
}

/// Reads how far these shards are, behind a barrier: entries up to there are on all replicas.
pub(crate) async fn confirmed(cluster: &Cluster, shards: &[&Shard]) -> Vec<Result<Confirmed, CallError>> {
    let calls: Vec<Confirm<'_>> = shards.iter().map(|shard| Confirm { shard }).collect();
    cluster.write_all_once(&calls).await
}

/// A part of a shard's orders, with all orders of its entries.
pub(crate) struct Batch {
    pub(crate) orders: Vec<Order>,
    /// Number of the last entry.
    pub(crate) until: u64,
}

/// Reads the next batch of entries after `after`, up to `until`. Returns `None` when an entry is missing: the stream is
/// not the one that was confirmed.
pub(crate) async fn batch(
    cluster: &Cluster,
    shard: &Shard,
    after: u64,
    until: u64,
) -> Result<Option<Batch>, CallError> {
    let read = ReadOrders { shard, after, until: Some(until), entries: ENTRIES_PER_BATCH };
    let orders = cluster.read(read).await?;
    let mut last = after;
    for order in &orders {
        if order.seq > last + 1 {
            return Ok(None);
        }
        last = order.seq;
    }
    let is_whole = last == until || last == after + ENTRIES_PER_BATCH as u64;
    Ok(is_whole.then_some(Batch { orders, until: last }))
}
