//! How buyers wait for Redis, and what must hold before they are told.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use service::settings::{duration, positive_duration};

/// How buyers wait for Redis.
#[derive(Args, Clone, Debug)]
pub struct LaneSettings {
    /// What must hold before a buyer is told `purchased`
    #[arg(long, env, value_enum, default_value_t = Durability::Replica)]
    pub durability: Durability,

    /// What becomes of a shard whose replica is dead while DURABILITY=replica
    #[arg(long, env, value_enum, default_value_t = DurabilityFallback::Refuse)]
    pub durability_fallback: DurabilityFallback,

    /// How many buyers may wait in a lane; further ones are told to come back
    // The default is 64 full calls, at 0.2-0.4 ms each: whoever is let in is served well within the timeout.
    #[arg(
        long = "lane-queue-max",
        env = "LANE_QUEUE_MAX",
        default_value = "4096",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub queue_max: usize,

    /// How long buyers may expect to wait in a lane until they are served; further ones are told to come back
    // Half of what buyers take for slow: how long a pipeline takes is an estimate, and a steal may come on top.
    #[arg(long = "lane-wait-max", env = "LANE_WAIT_MAX", value_parser = positive_duration, default_value = "500ms")]
    pub wait_max: Duration,

    /// How long a lane that was busy waits for more buyers before it sends the next pipeline
    #[arg(long = "lane-linger", env = "LANE_LINGER", value_parser = duration, default_value = "2ms")]
    pub linger: Duration,

    /// Longest time a purchase may take; afterwards its outcome is unknown
    #[arg(long, env, value_parser = positive_duration, default_value = "2s")]
    pub purchase_timeout: Duration,
}

/// What must hold before a buyer is told `purchased`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Every replica of the shard has the claim: it outlives the loss of the primary.
    Replica,
    /// The primary has the claim: a failover may forget it.
    None,
}

/// What becomes of a shard whose replica the cluster calls failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityFallback {
    /// Its buyers are told that the outcome is unknown, until the replica is back.
    Refuse,
    /// It goes on selling with the primary's copy alone. A purchase that was told is forgotten if the replica
    /// comes back with its old data and the primary dies before it has caught up.
    Primary,
}
