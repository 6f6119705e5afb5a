//! The node's settings. Each is an environment variable and a flag.

mod lanes;
mod public;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser};
use service::healthcheck;
use service::logs::LogFormat;
use service::serve::ConnectionLimits;
use service::settings::{RedisSettings, duration};
use service::traces::TraceSettings;
use stock::ids::SaleId;

pub use lanes::{Durability, DurabilityFallback, LaneSettings};
#[cfg(test)]
pub(crate) use public::tests::secret_named;
pub use public::{Auth, AuthSettings, LimitSettings, Origin, Secret, WebSettings};

/// A node of a sharded flash sale: answers buyers over HTTP.
#[derive(Parser, Clone)]
#[command(name = "flashsale-node", version, args_conflicts_with_subcommands = true)]
#[command(subcommands = [healthcheck::command()], disable_help_subcommand = true)]
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

    /// How many may connect.
    #[command(flatten)]
    pub connections: ConnectionLimits,

    /// How much one client may ask for.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// What browsers and proxies are trusted with.
    #[command(flatten)]
    pub web: WebSettings,

    /// How a client shows who it is.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// How the node ends.
    #[command(flatten)]
    pub drain: DrainSettings,

    /// How log lines look; text on a terminal, else JSON. RUST_LOG filters them
    #[arg(long, env, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceSettings,
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
