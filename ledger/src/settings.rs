//! The ledger's settings.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser};
use service::healthcheck;
use service::logs::LogFormat;
use service::operators::OperatorTokens;
use service::settings::{RedisSettings, in_file, positive_duration};
use service::traces::TraceSettings;

use crate::database::DatabaseSettings;
use crate::feed::{FeedSettings, replay};
use crate::{migrate, restore};

/// Writes the orders of all sales into PostgreSQL.
#[derive(Parser)]
#[command(name = "flashsale-ledger", version, args_conflicts_with_subcommands = true)]
#[command(subcommands = [healthcheck::command(), migrate::command(), restore::command(), replay::command()])]
#[command(disable_help_subcommand = true)]
pub struct Settings {
    /// Where operators, probes and Prometheus reach the ledger.
    #[command(flatten)]
    pub listen: ListenSettings,

    /// How to reach the Redis Cluster.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// How to reach PostgreSQL.
    #[command(flatten)]
    pub database: DatabaseSettings,

    /// Bearer tokens of the orders API, one per line: NAME:ROLE:TOKEN with the role read or operate, or only TOKEN for
    /// admin:operate:TOKEN. A token has at least 16 visible ASCII characters without ':'
    #[arg(long, env, required_unless_present = "admin_token_file", hide_env_values = true)]
    #[arg(conflicts_with = "admin_token_file")]
    admin_token: Option<OperatorTokens>,

    /// A file with the bearer tokens, instead of ADMIN_TOKEN. Empty lines and lines that start with # are ignored
    #[arg(long, env, value_parser = in_file::<OperatorTokens>)]
    admin_token_file: Option<OperatorTokens>,

    /// Time between two looks for new orders; four times as long while there are none, and for deliveries
    #[arg(long, env, value_parser = positive_duration, default_value = "50ms")]
    pub drain_period: Duration,

    /// Where orders are delivered.
    #[command(flatten)]
    pub feed: FeedSettings,

    /// Format of log lines; text on a terminal, else json, if not set
    #[arg(long, env, value_enum)]
    pub log_format: Option<LogFormat>,

    /// Where traces are sent.
    #[command(flatten)]
    pub traces: TraceSettings,
}

/// Where operators, probes and Prometheus reach the ledger.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListenSettings {
    /// Address to listen on. It must never be public
    #[arg(long, env, default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port of the orders API, /healthz, /readyz and /metrics
    #[arg(long, env, default_value_t = 3200)]
    port: u16,

    /// Another port of /healthz, /readyz and /metrics, for those who must not reach the orders API; none if not set
    #[arg(long, env)]
    ops_port: Option<u16>,
}

impl Settings {
    /// The bearer tokens of the orders API.
    pub fn operator_tokens(&self) -> OperatorTokens {
        let given = self.admin_token.as_ref().or(self.admin_token_file.as_ref());
        given.expect("one of the two is required").clone()
    }
}

impl ListenSettings {
    /// The address to listen on.
    pub fn address(self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// The address that answers probes.
    pub fn probes(self) -> SocketAddr {
        self.ops().unwrap_or_else(|| self.address())
    }

    /// The address for probes and metrics only, if there is one.
    pub fn ops(self) -> Option<SocketAddr> {
        self.ops_port.map(|port| SocketAddr::new(self.host, port))
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
