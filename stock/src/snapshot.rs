//! Snapshots: all shards' levels and the sale's totals, at about one moment.
//!
//! Shards are read one after the other, so a token in a transfer may be counted in neither shard; `in_flight` is the
//! number missing from the total. "Sold out" is derived from `sold` alone, which only grows. A sum of values read at
//! different moments is never more than the true sum, so when it equals the total, every unit is sold. A failover can
//! undo sales that a replica does not have yet. Therefore the sum is confirmed by a barrier before any buyer is
//! refused for good.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Cluster, EpochMs, Slot};
use serde::{Deserialize, Serialize};

use crate::calls::{Level, ReadLevel};
use crate::functions::{self, Function};
use crate::ids::ShardId;
use crate::layout::{Fingerprint, Shard};
use crate::sale::Sale;

/// A snapshot as coordinators publish it and nodes read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Fingerprint of the sale's layout. A snapshot of an earlier sale of the same name says nothing about this one.
    pub fingerprint: Fingerprint,
    /// Version of the config that it was taken under. A reader with an older config must read the config again.
    pub version: u64,
    /// Approximate time: the median of the clocks of the shards' primaries. It does not order snapshots, as clocks may
    /// be wrong.
    pub taken_at: EpochMs,
    /// Total units of the sale.
    pub total: u64,
    /// Units sold.
    pub sold: u64,
    /// Tokens in shards.
    pub stock: u64,
    /// Tokens that are minted but in no shard: in a transfer, or waiting in a channel.
    pub in_flight: u64,
    /// True when every unit is sold and no failover can change that.
    #[serde(default)]
    pub sold_out: bool,
    /// The part of each shard.
    pub shards: Vec<ShardLevel>,
}

/// A shard in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLevel {
    /// Tokens in the shard.
    pub stock: u64,
    /// Tokens sold by the shard.
    pub sold: u64,
    /// True when the shard could not be read this time, and the values are older ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Snapshot {
    /// Builds the snapshot of these levels. A shard that could not be read keeps its values from the `previous`
    /// snapshot. Its `sold` is then too low, never too high, so a sale is never reported as sold out too early. A
    /// `previous` snapshot of another sale of the same name is ignored.
    pub fn of(sale: &Sale, levels: &[Result<Level, CallError>], previous: Option<&Self>) -> Self {
        let previous = previous.filter(|previous| previous.is_of(sale));
        let previous_level = |shard: usize| {
            let before = previous.and_then(|snapshot| snapshot.shards.get(shard));
            before.map_or(ShardLevel { stock: 0, sold: 0, stale: true }, |level| ShardLevel {
                stale: true,
                ..*level
            })
        };
        let shard = |(shard, level): (usize, &Result<Level, _>)| match level {
            Ok(level) => ShardLevel { stock: level.stock, sold: level.sold, stale: false },
            Err(_) => previous_level(shard),
        };
        let shards: Vec<ShardLevel> = levels.iter().enumerate().map(shard).collect();
        let (stock, sold) = shards.iter().fold((0, 0), |(stock, sold), s| (stock + s.stock, sold + s.sold));
        let total = sale.config.total_stock;
        Self {
            fingerprint: sale.fingerprint().clone(),
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

    /// Returns true when it was taken of this sale, and not of another one of the same name.
    pub fn is_of(&self, sale: &Sale) -> bool {
        self.fingerprint == *sale.fingerprint()
    }

    /// Returns true when every unit seems to be sold, but this is not confirmed yet.
    pub fn needs_confirmation(&self) -> bool {
        self.sold >= self.total && !self.sold_out
    }

    /// Returns the tokens in this shard.
    pub fn stock_of(&self, shard: ShardId) -> u64 {
        self.shards.get(shard.index()).map_or(0, |level| level.stock)
    }
}

/// Returns the lower of the two middle values of an even number of times, and 0 when there are none.
fn median(mut times: Vec<EpochMs>) -> EpochMs {
    times.sort_unstable();
    times.len().checked_sub(1).map_or(0, |last| times[last / 2])
}

/// Reads the number of units a shard has sold, and of the entries in its order stream. Behind a barrier, the numbers can
/// no longer decrease. See `confirm.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Confirm<'a> {
    /// The shard.
    pub shard: &'a Shard,
}

/// The answer of [`Confirm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Units sold.
    pub sold: u64,
    /// Number of the latest entry in the order stream.
    pub seq: u64,
    /// The latest note of a ledger.
    pub drained: Option<DrainedNote>,
}

/// How far a ledger is, by its latest note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainedNote {
    /// Number of the latest entry in the ledger.
    pub seq: u64,
    /// Time since then.
    pub age: Duration,
}

impl Call for Confirm<'_> {
    type Answer = Confirmed;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Confirm, &[&self.shard.meta]);
        cmd.arg(self.shard.ring.as_str());
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Confirmed, CallError> {
        let (sold, seq, drained, age_ms): (u64, u64, i64, u64) = from_redis_value(reply)?;
        let note = |seq| DrainedNote { seq, age: Duration::from_millis(age_ms) };
        Ok(Confirmed { sold, seq, drained: u64::try_from(drained).ok().map(note) })
    }
}

/// Returns true when every unit of a sale is sold and no later failure can change that. Each shard is tried once.
pub async fn confirm_sold_out(cluster: &Cluster, sale: &Sale) -> bool {
    let calls: Vec<Confirm<'_>> = sale.shards().iter().map(|shard| Confirm { shard }).collect();
    let confirmed = cluster.write_all_once(&calls).await.into_iter();
    let sold = confirmed.map(|answer| answer.map(|confirmed| confirmed.sold)).sum::<Result<u64, CallError>>();
    sold.is_ok_and(|sold| sold >= sale.config.total_stock)
}

/// Reads the levels of all shards of a sale, one pipeline per primary.
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
    fn tokens_outside_shards_are_in_flight() {
        let snapshot = Snapshot::of(&sale(), &[level(10, 20), level(0, 30), level(5, 5)], None);
        assert_eq!((snapshot.stock, snapshot.sold, snapshot.in_flight), (15, 55, 30));
        assert!(!snapshot.needs_confirmation());
    }

    #[test]
    fn snapshot_time_ignores_one_wrong_clock() {
        let taken_at = |times: [EpochMs; 3]| {
            let levels = times.map(|at| Ok(Level { at, ..Level::default() }));
            Snapshot::of(&sale(), &levels, None).taken_at
        };
        assert_eq!(taken_at([5, 3_600_000, 7]), 7);
        assert_eq!(taken_at([5, 0, 7]), 5);
        let unreadable = [(); 3].map(|()| Err(CallError::NoReply("gone".into())));
        assert_eq!(Snapshot::of(&sale(), &unreadable, None).taken_at, 0);
    }

    #[test]
    fn sold_out_needs_all_units_sold() {
        let sold = |last| Snapshot::of(&sale(), &[level(0, 40), level(0, 30), level(0, last)], None);
        assert!(!sold(29).needs_confirmation());
        assert!(sold(30).needs_confirmation() && !sold(30).sold_out);
    }

    #[test]
    fn sold_out_stays_confirmed_until_a_restock() {
        let (sale, sold) = (sale(), [level(0, 40), level(0, 30), level(0, 30)]);
        let confirmed = Snapshot { sold_out: true, ..Snapshot::of(&sale, &sold, None) };
        assert!(Snapshot::of(&sale, &sold, Some(&confirmed)).sold_out);
        let restocked = SaleConfig { total_stock: 101, ..(*sale.config).clone() };
        let restocked = Snapshot::of(&sale.at(restocked).unwrap(), &sold, Some(&confirmed));
        assert!(!restocked.sold_out && !restocked.needs_confirmation());
    }

    #[test]
    fn snapshot_of_an_earlier_sale_is_ignored() {
        let earlier = Snapshot::of(&sale(), &[level(0, 40), level(0, 30), level(0, 30)], None);
        let earlier = Snapshot { sold_out: true, ..earlier };
        let lost = Err(CallError::NoReply("gone".into()));
        let now = Snapshot::of(&sale(), &[lost, level(30, 0), level(30, 0)], Some(&earlier));
        assert!(!now.sold_out);
        assert_eq!((now.stock, now.sold, now.shards[0].stock), (60, 0, 0));
    }

    #[test]
    fn unreadable_shard_keeps_its_previous_values() {
        let sale = sale();
        let before = Snapshot::of(&sale, &[level(10, 20), level(0, 30), level(5, 5)], None);
        let lost = || Err(CallError::NoReply("gone".into()));
        let after = Snapshot::of(&sale, &[lost(), level(0, 31), level(5, 5)], Some(&before));
        assert_eq!(after.shards[0], ShardLevel { stock: 10, sold: 20, stale: true });
        assert_eq!(after.sold, 56);
        let first = Snapshot::of(&sale, &[lost(), level(0, 80), level(5, 15)], None);
        assert!(!first.needs_confirmation(), "a shard that was never read counts as unsold");
    }
}
