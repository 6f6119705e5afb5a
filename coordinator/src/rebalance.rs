//! Plans which tokens to move so that shards run dry at the same time. Pure.
//!
//! A shard that sells more than its share of the ring runs dry before the others, and its buyers then wait for steals.
//! So tokens are moved there in advance, from shards that have more than they will need. Nodes keep stealing what is
//! missing, so correctness does not depend on any plan.

use stock::channels::Channel;
use stock::ids::ShardId;

use crate::demand::Demand;

/// How far a plan looks ahead, in seconds. Stock that lasts longer is not moved, because demand will have changed by
/// then.
const AHEAD_MAX_S: f64 = 5.0;
/// Seconds before the sale is sold out from which rebalancing stops: observations would be outdated by the time the
/// tokens arrive. Nodes' steals do the rest.
const AHEAD_MIN_S: f64 = 0.3;
/// Smallest demand on the whole sale, in purchases per second, at which differences between shards can be told from
/// chance.
const DEMAND_MIN: f64 = 30.0;
/// A shard gets tokens when it holds less than this fraction of its need. Shards with the same demand differ by chance,
/// and must not cause moves. A shard that got tokens holds its full need, so it takes long until it gets tokens again.
const NEEDY_BELOW: f64 = 0.75;
/// Most moves per plan. Each is two calls of about 20 us of Redis' time; this many must not be noticeable.
const MOVES_MAX: usize = 32;

/// The state of a shard as the plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// The shard.
    pub shard: ShardId,
    /// Tokens in the shard.
    pub stock: u64,
    /// Tokens in channels to the shard. They will arrive, so they are not requested again.
    pub incoming: u64,
    /// Its demand.
    pub demand: Demand,
}

/// A transfer of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// From which shard to which.
    pub channel: Channel,
    /// How many tokens.
    pub tokens: u64,
}

/// Returns the moves that make all shards of a sale last equally long. No shard is donor and receiver in one plan. No
/// donor gives more than half of its stock, or tokens that it needs itself.
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
    /// Tokens that the shard lacks for the next `ahead_s` seconds; 0 if that may be chance.
    fn missing(&self, ahead_s: f64) -> u64 {
        let stock = (self.stock + self.incoming) as f64;
        let is_needy = stock < NEEDY_BELOW * self.demand.at_least * ahead_s;
        if is_needy { (self.demand.likely * ahead_s - stock) as u64 } else { 0 }
    }

    /// Tokens that the shard can spare for the next `ahead_s` seconds, even at the upper bound of its demand.
    fn spare(&self, ahead_s: f64) -> u64 {
        let needed = (self.demand.at_most * ahead_s).ceil() as u64;
        self.stock.saturating_sub(needed).min(self.stock / 2)
    }
}

/// Gives each receiver the same fraction of what it lacks, or all of it if there is enough. Largest amounts first on
/// both sides.
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
