//! All shards' levels and the sale's totals, at about one moment.
//!
//! Shards are read one after the other, so a token on its way may be seen on neither side: `in_flight` is what
//! is then missing from the total. Selling out is told from `sold` alone, which only grows: the sum of numbers
//! read at different moments is never more than the truth, and when it is the total, the truth is the total. A
//! failover can take back what a replica does not have yet, so that sum is confirmed behind a barrier before anybody
//! is sent away for good.

use redis::{Cmd, Value, from_redis_value};
use serde::{Deserialize, Serialize};

use crate::calls::{Call, CallError, Level, ReadLevel};
use crate::cluster::Cluster;
use crate::functions::{self, Function};
use crate::ids::ShardId;
use crate::layout::{Shard, Slot};
use crate::sale::{EpochMs, Sale};

/// A snapshot as coordinators publish it and nodes read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The version of the config it was taken under; an older config is to be read again.
    pub version: u64,
    /// About when it was taken: the median of what the shards' primaries say. Snapshots are in no order by it, for clocks
    /// may be wrong.
    pub taken_at: EpochMs,
    /// Units of the sale in all.
    pub total: u64,
    /// Units sold.
    pub sold: u64,
    /// Tokens lying in shards.
    pub stock: u64,
    /// Tokens minted but in no shard: on their way, or waiting in a channel.
    pub in_flight: u64,
    /// Whether every unit is sold, and no failover can change that.
    #[serde(default)]
    pub sold_out: bool,
    /// Every shard's part.
    pub shards: Vec<ShardLevel>,
}

/// A shard in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLevel {
    /// Tokens there.
    pub stock: u64,
    /// Tokens sold there.
    pub sold: u64,
    /// Whether it could not be read this time: the numbers are older ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Snapshot {
    /// The snapshot of these levels. A shard that could not be read keeps its place in the `previous` one: its
    /// `sold` is then too low, never too high, so a sale is not taken for sold out too early.
    pub fn of(sale: &Sale, levels: &[Result<Level, CallError>], previous: Option<&Self>) -> Self {
        let unread = |shard: usize| {
            let before = previous.and_then(|snapshot| snapshot.shards.get(shard));
            before.map_or(ShardLevel { stock: 0, sold: 0, stale: true }, |level| ShardLevel {
                stale: true,
                ..*level
            })
        };
        let shard = |(shard, level): (usize, &Result<Level, _>)| match level {
            Ok(level) => ShardLevel { stock: level.stock, sold: level.sold, stale: false },
            Err(_) => unread(shard),
        };
        let shards: Vec<ShardLevel> = levels.iter().enumerate().map(shard).collect();
        let (stock, sold) = shards.iter().fold((0, 0), |(stock, sold), s| (stock + s.stock, sold + s.sold));
        let total = sale.config.total_stock;
        Self {
            version: sale.config.version,
            taken_at: median(levels.iter().flatten().map(|level| level.at).collect()),
            total,
            sold,
            stock,
            in_flight: total.saturating_sub(stock + sold),
            sold_out: previous.is_some_and(|previous| previous.sold_out && previous.total >= total),
            shards,
        }
    }

    /// Whether every unit seems to be sold, and nobody has confirmed it yet.
    pub fn is_to_be_confirmed(&self) -> bool {
        self.sold >= self.total && !self.sold_out
    }

    /// Tokens that lay in this shard.
    pub fn stock_of(&self, shard: ShardId) -> u64 {
        self.shards.get(shard.index()).map_or(0, |level| level.stock)
    }
}

/// Of an even number the lower one in the middle; 0 of none.
fn median(mut times: Vec<EpochMs>) -> EpochMs {
    times.sort_unstable();
    times.len().checked_sub(1).map_or(0, |last| times[last / 2])
}

/// Reads how much a shard has sold; behind a barrier, what it will ever have sold at least. See `confirm.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Confirm<'a> {
    /// The shard.
    pub shard: &'a Shard,
}

impl Call for Confirm<'_> {
    type Answer = u64;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Confirm, &[&self.shard.meta]);
        cmd.arg(self.shard.ring.as_str());
        cmd
    }

    fn answer(&self, reply: Value) -> Result<u64, CallError> {
        Ok(from_redis_value(reply)?)
    }
}

/// Whether every unit of a sale is sold, whatever fails from now on. Each shard is tried once.
pub async fn confirm_sold_out(cluster: &Cluster, sale: &Sale) -> bool {
    let calls: Vec<Confirm<'_>> = sale.shards().iter().map(|shard| Confirm { shard }).collect();
    let sold = cluster.write_all_once(&calls).await.into_iter().sum::<Result<u64, CallError>>();
    sold.is_ok_and(|sold| sold >= sale.config.total_stock)
}

/// Reads the levels of all shards of a sale, one pipeline a primary.
pub async fn read_levels(cluster: &Cluster, sale: &Sale) -> Vec<Result<Level, CallError>> {
    let calls: Vec<ReadLevel<'_>> = sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
    cluster.read_all(&calls).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sale::SaleConfig;

    fn sale() -> Sale {
        Sale::new(crate::sale::tests::config()).unwrap()
    }

    fn level(stock: u64, sold: u64) -> Result<Level, CallError> {
        Ok(Level { at: 5, stock, sold, ..Level::default() })
    }

    #[test]
    fn what_is_in_no_shard_is_in_flight() {
        let snapshot = Snapshot::of(&sale(), &[level(10, 20), level(0, 30), level(5, 5)], None);
        assert_eq!((snapshot.stock, snapshot.sold, snapshot.in_flight), (15, 55, 30));
        assert!(!snapshot.is_to_be_confirmed());
    }

    #[test]
    fn one_wrong_clock_does_not_move_the_time_of_a_snapshot() {
        let taken_at = |times: [EpochMs; 3]| {
            let levels = times.map(|at| Ok(Level { at, ..Level::default() }));
            Snapshot::of(&sale(), &levels, None).taken_at
        };
        assert_eq!(taken_at([5, 3_600_000, 7]), 7);
        assert_eq!(taken_at([5, 0, 7]), 5);
        let unread = [(); 3].map(|()| Err(CallError::NoReply("gone".into())));
        assert_eq!(Snapshot::of(&sale(), &unread, None).taken_at, 0);
    }

    #[test]
    fn sold_out_means_that_all_units_are_sold_not_that_all_shards_are_empty() {
        let sold = |last| Snapshot::of(&sale(), &[level(0, 40), level(0, 30), level(0, last)], None);
        assert!(!sold(29).is_to_be_confirmed());
        assert!(sold(30).is_to_be_confirmed() && !sold(30).sold_out);
    }

    #[test]
    fn what_was_confirmed_stays_so_until_there_are_more_units() {
        let sold = [level(0, 40), level(0, 30), level(0, 30)];
        let confirmed = Snapshot { sold_out: true, ..Snapshot::of(&sale(), &sold, None) };
        assert!(Snapshot::of(&sale(), &sold, Some(&confirmed)).sold_out);
        let restocked = SaleConfig { total_stock: 101, ..crate::sale::tests::config() };
        let restocked = Snapshot::of(&Sale::new(restocked).unwrap(), &sold, Some(&confirmed));
        assert!(!restocked.sold_out && !restocked.is_to_be_confirmed());
    }

    #[test]
    fn a_shard_that_cannot_be_read_keeps_its_last_numbers() {
        let before = Snapshot::of(&sale(), &[level(10, 20), level(0, 30), level(5, 5)], None);
        let lost = || Err(CallError::NoReply("gone".into()));
        let after = Snapshot::of(&sale(), &[lost(), level(0, 31), level(5, 5)], Some(&before));
        assert_eq!(after.shards[0], ShardLevel { stock: 10, sold: 20, stale: true });
        assert_eq!(after.sold, 56);
        let first = Snapshot::of(&sale(), &[lost(), level(0, 80), level(5, 15)], None);
        assert!(!first.is_to_be_confirmed(), "a shard that was never read counts as unsold");
    }
}
