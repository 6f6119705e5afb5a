//! The state of a sale that answers are compared with.

use std::collections::HashMap;

use rediscluster::EpochMs;
use stock::sale::ShardSettings;

/// The record that a user has a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Id of the order that created the claim.
    pub order: String,
    /// Time of the purchase, by Redis' clock.
    pub at_ms: EpochMs,
}

/// State of a sale at the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// All claims, by user.
    pub claims: HashMap<String, Claim>,
    /// Total units, as counted by the coordinator's audit.
    pub total: u64,
    /// Settings that each shard applies, by its number. Empty if they were not read.
    pub shards: Vec<ShardSettings>,
}
