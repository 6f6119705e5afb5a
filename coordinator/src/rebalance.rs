//! Which tokens to move so that shards run dry together. Pure: it decides, others do.
//!
//! A shard that sells more than its share of the ring runs dry before the others, and its buyers then wait for
//! steals. So tokens are brought there ahead of them, from shards that have more than they will need. Nodes go on
//! stealing whatever is missing; nothing rests on a plan being carried out, or being right.

use stock::ids::ShardId;

use crate::channels::Channel;
use crate::demand::Demand;

/// How far ahead it looks, seconds. What lasts longer is left alone: demand will have changed by then.
const AHEAD_MAX_S: f64 = 5.0;
/// From when on it leaves a sale to the nodes, seconds before it is sold out: what was seen is then too old by the
/// time that tokens arrive.
const AHEAD_MIN_S: f64 = 0.3;
/// Purchases a second of the whole sale from which on it can tell who sells more than others.
const DEMAND_MIN: f64 = 30.0;
/// A shard is helped when it holds less than this part of what it needs. Those that sell alike differ by chance;
/// and one that was helped holds all of it, so it is long until it is helped again.
const NEEDY_BELOW: f64 = 0.75;
/// Most moves at a time. Each is two calls of some 20 us of Redis, of which this many must not be felt.
const MOVES_MAX: usize = 32;

/// A shard as a plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// The shard.
    pub shard: ShardId,
    /// Tokens there.
    pub stock: u64,
    /// Tokens on their way there, in channels. They will arrive, if late; nobody else is asked for them.
    pub incoming: u64,
    /// What it sells.
    pub demand: Demand,
}

/// Tokens to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// From where to where.
    pub channel: Channel,
    /// How many.
    pub tokens: u64,
}

/// The moves that make these shards of a sale last equally long. No shard gives and gets in one plan, and none
/// gives more than half of its stock, or what it needs itself.
pub fn rebalance(shards: &[Holding]) -> Vec<PlannedMove> {
    let stock: u64 = shards.iter().map(|shard| shard.stock + shard.incoming).sum();
    let demand: f64 = shards.iter().map(|shard| shard.demand.likely).sum();
    let lasts_s = stock as f64 / demand;
    if demand < DEMAND_MIN || lasts_s < AHEAD_MIN_S {
        return Vec::new();
    }
    let ahead_s = lasts_s.min(AHEAD_MAX_S);
    let amounts = |of: fn(&Holding, f64) -> u64| {
        let amounts = shards.iter().map(|shard| (shard.shard, of(shard, ahead_s)));
        let mut some: Vec<(ShardId, u64)> = amounts.filter(|(_, tokens)| *tokens > 0).collect();
        some.sort_by_key(|&(_, tokens)| std::cmp::Reverse(tokens));
        some
    };
    pair(amounts(Holding::spare), &amounts(Holding::missing))
}

impl Holding {
    /// What it lacks for so many seconds; nothing if that may be chance.
    fn missing(&self, ahead_s: f64) -> u64 {
        let stock = (self.stock + self.incoming) as f64;
        let is_needy = stock < NEEDY_BELOW * self.demand.at_least * ahead_s;
        if is_needy { (self.demand.likely * ahead_s - stock) as u64 } else { 0 }
    }

    /// What it can do without for so many seconds, whatever comes.
    fn spare(&self, ahead_s: f64) -> u64 {
        let needed = (self.demand.at_most * ahead_s).ceil() as u64;
        self.stock.saturating_sub(needed).min(self.stock / 2)
    }
}

/// Gives each taker the same part of what it lacks, the whole if there is enough; largest first on both sides.
fn pair(mut spare: Vec<(ShardId, u64)>, missing: &[(ShardId, u64)]) -> Vec<PlannedMove> {
    let sum = |amounts: &[(ShardId, u64)]| amounts.iter().map(|&(_, tokens)| tokens).sum::<u64>();
    let (given, wanted) = (sum(&spare), sum(missing));
    let mut moves = Vec::new();
    for &(receiver, tokens) in missing {
        let mut open = (u128::from(tokens) * u128::from(given.min(wanted)) / u128::from(wanted)) as u64;
        for (donor, left) in &mut spare {
            let tokens = open.min(*left);
            if tokens > 0 {
                moves.push(PlannedMove { channel: Channel { donor: *donor, receiver }, tokens });
                (open, *left) = (open - tokens, *left - tokens);
            }
        }
    }
    moves.truncate(MOVES_MAX);
    moves
}

#[cfg(test)]
mod tests;
