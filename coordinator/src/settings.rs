//! The coordinator's settings, including the default sale.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Parser};
use rediscluster::EpochMs;
use service::healthcheck;
use service::logs::LogFormat;
use service::operators::OperatorTokens;
use service::settings::{RedisSettings, TimeSetting, in_file, refuse};
use service::traces::TraceSettings;
use stock::ids::{SaleId, UserIdKind};
use stock::sale::{Product, SHARDS_MAX};

use crate::cluster_command;
use crate::new_sale::{Field, NewSale, price};
use crate::timing::Timing;

/// The control plane of a sharded flash sale: creates sales, takes snapshots, repairs transfers, audits.
#[derive(Parser)]
#[command(name = "flashsale-coordinator", version, args_conflicts_with_subcommands = true)]
#[command(subcommands = [healthcheck::command(), cluster_command::command()], disable_help_subcommand = true)]
pub struct Settings {
    /// Where operators reach the coordinator.
    #[command(flatten)]
    pub listen: ListenSettings,

    /// How to reach the cluster.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// Bearer tokens of the admin API, one per line: NAME:ROLE:TOKEN with the role read or operate, or only TOKEN for
    /// admin:operate:TOKEN. A token has at least 16 visible ASCII characters without ':'
    #[arg(long, env, required_unless_present = "admin_token_file", hide_env_values = true)]
    #[arg(conflicts_with = "admin_token_file")]
    admin_token: Option<OperatorTokens>,

    /// A file with the bearer tokens, instead of ADMIN_TOKEN. Empty lines and lines that start with # are ignored
    #[arg(long, env, value_parser = in_file::<OperatorTokens>)]
    admin_token_file: Option<OperatorTokens>,

    /// Periods and waits.
    #[command(flatten)]
    pub timing: Timing,

    /// Format of log lines; text on a terminal, else json, if not set
    #[arg(long, env, value_enum)]
    pub log_format: Option<LogFormat>,

    /// Where traces are sent.
    #[command(flatten)]
    pub traces: TraceSettings,

    /// Id of the default sale: a-z, 0-9 and '-', at most 32
    #[arg(long, env, default_value = "flash")]
    pub sale_id: SaleId,

    /// Units of the default sale; without it, there is no default sale
    #[arg(long, env, requires_all = ["sale_start_time", "sale_end_time"])]
    total_stock: Option<u64>,

    /// When the default sale opens: ISO 8601, seconds or milliseconds since 1970, or relative (1m). A relative time
    /// counts from the creation of the sale, and is ignored once it exists
    #[arg(long, env, requires = "total_stock", allow_hyphen_values = true)]
    sale_start_time: Option<TimeSetting>,

    /// When the default sale closes
    #[arg(long, env, requires = "total_stock", allow_hyphen_values = true)]
    sale_end_time: Option<TimeSetting>,

    /// Name of the product that the default sale sells
    #[arg(long, env, default_value = "Flash sale item")]
    product_name: String,

    /// Its price
    #[arg(long, env, value_parser = price, default_value = "0")]
    product_price: f64,

    /// A short description of it
    #[arg(long, env, default_value = "")]
    product_description: String,

    /// How the default sale compares user ids: opaque; email, which makes all spellings of an address one user; or email-folded, which
    /// also ignores a tag after + and the dots of Gmail
    #[arg(long, env, value_parser = user_ids, default_value = "opaque")]
    user_ids: UserIdKind,

    /// Shards of the default sale, at most 256; by default as many per primary as the units need
    #[arg(long, env, value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u16>,
}

/// Where operators reach the coordinator.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListenSettings {
    /// Address to listen on. The admin API and the live view must never be public
    #[arg(long, env, default_value = "127.0.0.1")]
    host: IpAddr,

    /// Port of the live view, the admin API, /healthz, /readyz and /metrics
    #[arg(long, env, default_value_t = 3100)]
    port: u16,

    /// Another port of /healthz, /readyz and /metrics, for those who must not reach the admin API; none if not set
    #[arg(long, env)]
    ops_port: Option<u16>,
}

impl ListenSettings {
    /// The address that operators connect to.
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

impl Settings {
    /// Parses the settings of this process. Exits on an invalid setting, and on an invalid default sale.
    pub fn parse(now: EpochMs) -> Self {
        let settings: Self = service::settings::parse();
        if let Some(Err(invalid)) = settings.default_sale().map(|sale| sale.validate(now)) {
            refuse(format_args!("{}: {invalid}", Field::of(&invalid).variable()));
        }
        settings
    }

    /// The bearer tokens of the operators.
    pub fn operator_tokens(&self) -> OperatorTokens {
        let given = self.admin_token.as_ref().or(self.admin_token_file.as_ref());
        given.expect("one of the two is required").clone()
    }

    /// The sale to create at the start, if any.
    pub fn default_sale(&self) -> Option<NewSale> {
        let (name, description) = (self.product_name.clone(), self.product_description.clone());
        Some(NewSale {
            id: self.sale_id.clone(),
            total_stock: self.total_stock?,
            starts_at: self.sale_start_time?,
            ends_at: self.sale_end_time?,
            product: Product { name, price: self.product_price, description },
            user_ids: self.user_ids,
            shards: self.shards,
        })
    }
}

fn user_ids(raw: &str) -> Result<UserIdKind, &'static str> {
    match raw {
        "opaque" => Ok(UserIdKind::Opaque),
        "email" => Ok(UserIdKind::Email),
        "email-folded" => Ok(UserIdKind::EmailFolded),
        _ => Err("must be opaque, email or email-folded"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    const REQUIRED: [&str; 5] =
        ["flashsale-coordinator", "--redis-url", "redis://a", "--admin-token", "0123456789abcdef"];

    fn parse(more: &[&str]) -> Result<Settings, clap::Error> {
        Settings::try_parse_from(REQUIRED.iter().chain(more))
    }

    #[test]
    fn command_line_is_well_formed() {
        Settings::command().debug_assert();
    }

    #[test]
    fn no_default_sale_without_total_stock() {
        assert_eq!(parse(&[]).unwrap().default_sale(), None);
    }

    #[test]
    fn default_sale_needs_stock_start_and_end() {
        let (stock, start, end) =
            (["--total-stock", "9"], ["--sale-start-time", "1m"], ["--sale-end-time", "1h"]);
        for incomplete in [[stock, start], [stock, end], [start, end]] {
            assert!(parse(incomplete.as_flattened()).is_err(), "{incomplete:?}");
        }
        let sale = parse([stock, start, end].as_flattened()).unwrap().default_sale().unwrap();
        assert_eq!((sale.id.as_str(), sale.total_stock, sale.shards), ("flash", 9, None));
        assert_eq!(sale.validate(0), Ok(()));
    }

    #[test]
    fn rebalance_period_may_be_zero() {
        assert!(parse(&["--rebalance-period", "0ms"]).unwrap().timing.rebalance_period.is_zero());
    }

    #[test]
    fn invalid_setting_values_are_refused() {
        let bad = [
            ["--port", "99999"],
            ["--host", "localhost"],
            ["--snapshot-period", "0ms"],
            ["--redrive-after", "1"],
            ["--rebalance-period", "-1s"],
            ["--lease-duration", "499ms"],
            ["--lease-duration", "2"],
            ["--sale-id", "Flash"],
            ["--shards", "0"],
            ["--shards", "257"],
            ["--user-ids", "phone"],
            ["--product-price", "cheap"],
        ];
        for arguments in bad {
            assert!(parse(&arguments).is_err(), "{arguments:?} was taken");
        }
    }
}
