//! All shards' levels and the sale's totals, at about one moment.
//!
//! Shards are read one after the other, so a token on its way may be seen on neither side: `in_flight` is what
//! is then missing from the total. Selling out is told from `sold` alone, which only grows: the sum of numbers
//! read at different moments is never more than the truth, and when it is the total, the truth is the total.

use serde::{Deserialize, Serialize};

use crate::calls::{CallError, Level, ReadLevel};
use crate::cluster::Cluster;
use crate::ids::ShardId;
use crate::sale::{EpochMs, Sale};

/// A snapshot as coordinators publish it and nodes read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The version of the config it was taken under; an older config is to be read again.
    pub version: u64,
    /// When it was taken, by the clock of the shards' primaries.
    pub taken_at: EpochMs,
    /// Units of the sale in all.
    pub total: u64,
    /// Units sold.
    pub sold: u64,
    /// Tokens lying in shards.
    pub stock: u64,
    /// Tokens minted but in no shard: on their way, or waiting in a channel.
    pub in_flight: u64,
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
            taken_at: levels.iter().flatten().map(|level| level.at).max().unwrap_or_default(),
            total,
            sold,
            stock,
            in_flight: total.saturating_sub(stock + sold),
            shards,
        }
    }

    /// Whether every unit is sold.
    pub fn sold_out(&self) -> bool {
        self.sold >= self.total
    }

    /// Tokens that lay in this shard.
    pub fn stock_of(&self, shard: ShardId) -> u64 {
        self.shards.get(shard.index()).map_or(0, |level| level.stock)
    }
}

/// Reads the levels of all shards of a sale, one pipeline a primary.
pub async fn read_levels(cluster: &Cluster, sale: &Sale) -> Vec<Result<Level, CallError>> {
    let calls: Vec<ReadLevel<'_>> = sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
    cluster.read_all(&calls).await
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!snapshot.sold_out());
    }

    #[test]
    fn sold_out_means_that_all_units_are_sold_not_that_all_shards_are_empty() {
        assert!(!Snapshot::of(&sale(), &[level(0, 40), level(0, 30), level(0, 29)], None).sold_out());
        assert!(Snapshot::of(&sale(), &[level(0, 40), level(0, 30), level(0, 30)], None).sold_out());
    }

    #[test]
    fn a_shard_that_cannot_be_read_keeps_its_last_numbers() {
        let before = Snapshot::of(&sale(), &[level(10, 20), level(0, 30), level(5, 5)], None);
        let lost = || Err(CallError::NoReply("gone".into()));
        let after = Snapshot::of(&sale(), &[lost(), level(0, 31), level(5, 5)], Some(&before));
        assert_eq!(after.shards[0], ShardLevel { stock: 10, sold: 20, stale: true });
        assert_eq!(after.sold, 56);
        let first = Snapshot::of(&sale(), &[lost(), level(0, 80), level(5, 15)], None);
        assert!(!first.sold_out(), "a shard that was never read counts as unsold");
    }
}
