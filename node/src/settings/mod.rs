//! Settings of the node. Each is an environment variable and a flag.

mod lanes;
mod public;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser};
use ipnet::IpNet;
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
    /// Addresses to listen on.
    #[command(flatten)]
    pub listen: ListenSettings,

    /// The default sale, for paths that name none
    #[arg(long, env, default_value = "flash")]
    pub sale_id: SaleId,

    /// Connection to the Redis Cluster.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// Settings of the lanes to Redis.
    #[command(flatten)]
    pub lanes: LaneSettings,

    /// Limits on connections.
    #[command(flatten)]
    pub connections: ConnectionLimits,

    /// Rate limits.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// Trust in browsers and proxies.
    #[command(flatten)]
    pub web: WebSettings,

    /// Authentication of clients.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// Shutdown behaviour.
    #[command(flatten)]
    pub drain: DrainSettings,

    /// Format of log lines; text on a terminal, else JSON. RUST_LOG filters them
    #[arg(long, env, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Export of traces.
    #[command(flatten)]
    pub traces: TraceSettings,
}

impl Settings {
    /// Returns the networks whose addresses stand for many clients or are exempt: they have no share of connections or
    /// event listeners.
    pub fn networks_without_share(&self) -> Vec<IpNet> {
        [&self.web.trusted_proxies[..], &self.limits.rate_limit_exempt].concat()
    }
}

/// Addresses to listen on.
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

/// Shutdown behaviour.
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
    /// Returns the address that buyers connect to.
    pub fn public(self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Returns the address that operators connect to.
    pub fn ops(self) -> SocketAddr {
        SocketAddr::new(self.host, self.ops_port)
    }
}
