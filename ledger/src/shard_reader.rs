//! Reads the orders of shards that no failover can take back.

use futures::future::Either;
use rediscluster::{CallError, Cluster};
use stock::layout::Shard;
use stock::orders::{Order, ReadOrders, ReadProgress};
use stock::sale::Sale;
use stock::snapshot::{Confirm, Confirmed};

/// Entries in one batch. An entry has up to 64 orders, so a batch has up to 4,096: PostgreSQL takes large batches with
/// the least work.
const ENTRIES_PER_BATCH: usize = 64;

/// Most orders in one batch.
pub(crate) const ORDERS_PER_BATCH_MAX: u64 = 4_096;

/// Reads how far all shards are, without a barrier. One pipeline for each primary.
pub(crate) async fn progress(cluster: &Cluster, sale: &Sale) -> Vec<Result<Confirmed, CallError>> {
    let calls: Vec<ReadProgress<'_>> = sale.shards().iter().map(|shard| ReadProgress { shard }).collect();
    cluster.poll_all(&calls).await
}

/// The next orders of a shard, with all orders of their entries.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) shard: &'a Shard,
    /// Number of the entry before them.
    pub(crate) after: u64,
    /// Number of their last entry.
    pub(crate) until: u64,
    pub(crate) orders: Vec<Order>,
    /// True when more entries were confirmed.
    pub(crate) has_more: bool,
}

/// Why a batch was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Redis(#[from] CallError),
    #[error("the shard has {confirmed} entries, and {drained} are in the ledger: Redis has lost data")]
    ShorterThanLedger { confirmed: u64, drained: u64 },
    #[error("entries after {0} are missing in the order stream")]
    MissingEntries(u64),
}

/// Reads the next entries of these shards, each after the number beside it. All of them are on all replicas.
///
/// The entries travel in the pipeline that checks the shard's incarnation and ends in the barrier. So nothing can take
/// the place of the shard between the check and the read, and the server that gave the entries is the primary that the
/// barrier confirmed.
pub(crate) async fn batches<'a>(
    cluster: &Cluster,
    shards: &[(&'a Shard, u64)],
) -> Vec<Result<Batch<'a>, ReadError>> {
    let steps = |&(shard, after)| {
        let read = ReadOrders { shard, after, until: None, entries: ENTRIES_PER_BATCH };
        [Either::Left(Confirm { shard }), Either::Right(read)]
    };
    let calls: Vec<_> = shards.iter().flat_map(steps).collect();
    let mut answers = cluster.write_all_once(&calls).await.into_iter();
    let mut next = || answers.next().expect("each call has an answer");
    shards.iter().map(|&(shard, after)| batch(shard, after, next(), next())).collect()
}

type Answered = Result<Either<Confirmed, Vec<Order>>, CallError>;

fn batch(shard: &Shard, after: u64, confirmed: Answered, orders: Answered) -> Result<Batch<'_>, ReadError> {
    let (Either::Left(Confirmed { seq: confirmed, .. }), Either::Right(orders)) = (confirmed?, orders?)
    else {
        unreachable!("each call has an answer of its own kind");
    };
    let orders = confirmed_orders(after, confirmed, orders)?;
    let until = orders.last().map_or(after, |order| order.seq);
    Ok(Batch { shard, after, until, orders, has_more: until < confirmed })
}

/// Leaves out entries after the confirmed one, and checks that no other entry is missing.
fn confirmed_orders(after: u64, confirmed: u64, mut orders: Vec<Order>) -> Result<Vec<Order>, ReadError> {
    if confirmed < after {
        return Err(ReadError::ShorterThanLedger { confirmed, drained: after });
    }
    // Entries that came after the barrier's write are not covered by it.
    orders.retain(|order| order.seq <= confirmed);
    let mut last = after;
    for order in &orders {
        if order.seq > last + 1 {
            return Err(ReadError::MissingEntries(last));
        }
        last = order.seq;
    }
    let is_whole = last == confirmed.min(after + ENTRIES_PER_BATCH as u64);
    if is_whole { Ok(orders) } else { Err(ReadError::MissingEntries(last)) }
}

#[cfg(test)]
mod tests {
    use stock::calls::Claim;
    use stock::ids::{OrderId, UserId};

    use super::*;

    fn read(after: u64, confirmed: u64, entries: &[u64]) -> Result<Vec<u64>, ReadError> {
        let order = |&seq| Order {
            seq,
            place: 0,
            user: UserId::stored(format!("buyer-{seq}")),
            claim: Claim { order: OrderId::random(), purchased_at: 1_500 },
            correlation: "trace".into(),
        };
        let orders = confirmed_orders(after, confirmed, entries.iter().map(order).collect())?;
        Ok(orders.iter().map(|order| order.seq).collect())
    }

    #[test]
    fn batch_ends_at_the_confirmed_entry() {
        assert_eq!(read(4, 6, &[5, 5, 6, 7, 8]).unwrap(), [5, 5, 6]);
        let all = Vec::from_iter(1..=64);
        assert_eq!(read(0, 100, &all).unwrap(), all);
        assert!(read(6, 6, &[7]).unwrap().is_empty(), "a failover has taken the news back");
    }

    #[test]
    fn missing_entries_are_an_error() {
        for missing in [&[6, 7][..], &[5, 7], &[5, 6], &[]] {
            assert!(matches!(read(4, 7, missing), Err(ReadError::MissingEntries(_))), "{missing:?}");
        }
    }

    #[test]
    fn shard_that_is_behind_its_cursor_is_an_error() {
        let read = read(7, 6, &[]);
        assert!(matches!(read, Err(ReadError::ShorterThanLedger { confirmed: 6, drained: 7 })), "{read:?}");
    }
}
