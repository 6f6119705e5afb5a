//! Settings of the lanes: queues, durability and the purchase timeout.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use service::settings::{duration, positive_duration};

/// Settings of the lanes to Redis.
#[derive(Args, Clone, Debug)]
pub struct LaneSettings {
    /// Condition for answering `purchased`
    #[arg(long, env, value_enum, default_value_t = Durability::Replica)]
    pub durability: Durability,

    /// Behaviour of a shard whose replica has failed while DURABILITY=replica
    #[arg(long, env, value_enum, default_value_t = DurabilityFallback::Refuse)]
    pub durability_fallback: DurabilityFallback,

    /// Largest number of buyers that wait in a lane; further ones are asked to retry
    // The default is 64 full calls at 0.2-0.4 ms each: an admitted buyer is served well within the timeout.
    #[arg(
        long = "lane-queue-max",
        env = "LANE_QUEUE_MAX",
        default_value = "4096",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub queue_max: usize,

    /// Longest expected wait of a buyer in a lane; further buyers are asked to retry
    // Half of what buyers perceive as slow: the duration of a pipeline is an estimate, and a steal may come on top.
    #[arg(long = "lane-wait-max", env = "LANE_WAIT_MAX", value_parser = positive_duration, default_value = "500ms")]
    pub wait_max: Duration,

    /// Time that a busy lane waits for more buyers before it sends the next pipeline
    #[arg(long = "lane-linger", env = "LANE_LINGER", value_parser = duration, default_value = "2ms")]
    pub linger: Duration,

    /// Longest time that a purchase may take; after that its outcome is unknown
    #[arg(long, env, value_parser = positive_duration, default_value = "2s")]
    pub purchase_timeout: Duration,
}

/// Condition for answering `purchased`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Every replica of the shard has the claim, so it survives the loss of the primary.
    Replica,
    /// The primary has the claim. A failover may lose it.
    None,
}

/// Behaviour of a shard whose replica the cluster reports as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityFallback {
    /// Its buyers get an unknown outcome until the replica is back.
    Refuse,
    /// It goes on selling with the primary's copy alone. A reported purchase is lost if the replica comes back with old
    /// data and the primary dies before the replica has caught up.
    Primary,
}
