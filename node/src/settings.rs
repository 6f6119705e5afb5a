//! The node's settings. Each is an environment variable and a flag.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, ValueEnum};
use service::logs::LogFormat;
use service::settings::{RedisSettings, duration, positive_duration};
use stock::ids::SaleId;

/// A node of a sharded flash sale: answers buyers over HTTP.
#[derive(Parser, Clone)]
#[command(name = "flashsale-node", version)]
pub struct Settings {
    /// Where buyers and operators reach the node.
    #[command(flatten)]
    pub listen: ListenSettings,

    /// The default sale: the one that is meant where a path names none
    #[arg(long, env, default_value = "flash")]
    pub sale_id: SaleId,

    /// Where the cluster is.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// How buyers wait for Redis.
    #[command(flatten)]
    pub lanes: LaneSettings,

    /// How the node ends.
    #[command(flatten)]
    pub drain: DrainSettings,

    /// How log lines look; text on a terminal, else JSON. RUST_LOG filters them
    #[arg(long, env, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Where buyers and operators reach the node.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListenSettings {
    /// The address to listen on, on both ports
    #[arg(long, env, default_value = "0.0.0.0")]
    host: IpAddr,

    /// The port for buyers
    #[arg(long, env, default_value = "3001")]
    port: u16,

    /// The port for /healthz, /readyz and /metrics; not for the public
    #[arg(long, env, default_value = "9001")]
    ops_port: u16,
}

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

    /// How long buyers may have to wait in a lane until they are served; further ones are told to come back
    // Waiting, the pipeline under way, and one's own: with the default all of it stays well under a second.
    #[arg(long = "lane-wait-max", env = "LANE_WAIT_MAX", value_parser = positive_duration, default_value = "250ms")]
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

/// How the node ends.
#[derive(Args, Clone, Copy, Debug)]
pub struct DrainSettings {
    /// How long readiness is red before the port for buyers closes: as long as load balancers take to notice
    #[arg(long = "drain-delay", env = "DRAIN_DELAY", value_parser = duration, default_value = "500ms")]
    pub delay: Duration,

    /// Longest wait for requests in flight after that
    #[arg(long = "drain-timeout", env = "DRAIN_TIMEOUT", value_parser = duration, default_value = "10s")]
    pub timeout: Duration,
}

impl ListenSettings {
    /// Where buyers reach the node.
    pub fn public(self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Where operators reach it.
    pub fn ops(self) -> SocketAddr {
        SocketAddr::new(self.host, self.ops_port)
    }
}
