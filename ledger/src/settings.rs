//! The ledger's settings.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser};
use service::healthcheck;
use service::logs::LogFormat;
use service::settings::{RedisSettings, positive_duration};
use service::traces::TraceSettings;

use crate::database::DatabaseSettings;
use crate::migrate;

/// Writes the orders of all sales into PostgreSQL.
#[derive(Parser)]
#[command(name = "flashsale-ledger", version, args_conflicts_with_subcommands = true)]
#[command(subcommands = [healthcheck::command(), migrate::command()], disable_help_subcommand = true)]
pub struct Settings {
    /// Where probes and Prometheus reach the ledger.
    #[command(flatten)]
    pub listen: ListenSettings,

    /// How to reach the Redis Cluster.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// How to reach PostgreSQL.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// Time between two looks for new orders
    #[arg(long, env, value_parser = positive_duration, default_value = "200ms")]
    pub drain_period: Duration,

    /// Format of log lines; text on a terminal, else json, if not set
    #[arg(long, env, value_enum)]
    pub log_format: Option<LogFormat>,

    /// Where traces are sent.
    #[command(flatten)]
    pub traces: TraceSettings,
}

/// Where probes and Prometheus reach the ledger.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListenSettings {
    /// Address to listen on. It must never be public
    #[arg(long, env, default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port of /healthz, /readyz and /metrics
    #[arg(long, env, default_value_t = 3200)]
    port: u16,
}

impl ListenSettings {
    /// The address to listen on.
    pub fn address(self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        Settings::command().debug_assert();
    }
}
