//! The command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, error::ErrorKind, value_parser};
use jiff::SignedDuration;
use reqwest::Url;

use crate::{exit, thresholds::Limits};

const EXIT_CODES: &str = "\
Exit codes:
  0   every promise held, every threshold was met
  1   no verdict: a server could not be reached or a report could not be written
  2   a promise was broken: oversold, bought twice, a purchase lost, or a failed audit of coordinator or ledger
  3   a threshold was missed
  64  an invalid option";

/// Generates load on a running flash sale, and audits the answers to its buyers.
#[derive(Debug, Parser)]
#[command(name = "flashsale-loadtest", version, after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// A crowd that grows to 1000 users and shrinks again: they read the status, buy, and look their purchase up.
    Rush(Rush),
    /// Each user buys many times at once, through several endpoints: each user must get one order only.
    Duplicates(Duplicates),
    /// Users who do not buy: they read the status and listen to server-sent events.
    Browse(Steady),
    /// A moderate crowd for a long time.
    Soak(Steady),
    /// The opening second as an open loop: buyers arrive at a fixed rate, however slow the answers are.
    Spike(Spike),
}

#[derive(Debug, Args)]
pub(crate) struct Rush {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Highest number of concurrent users. The steps before have a tenth and a half of it.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(10..=20_000))]
    pub(crate) users: u32,
    /// Length of each of the five steps: three up, one at the highest number, one down. Whole seconds.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = seconds)]
    pub(crate) step: Duration,
    /// Average pause of a user between two requests.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) pause: Duration,
    /// Limit of the p95 latency of each kind of request.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    p95: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Duplicates {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of concurrent users.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) users: u32,
    /// Purchases that each user sends at once.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u32).range(2..=1_000))]
    pub(crate) copies: u32,
    /// Length of the run. Whole seconds.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seconds)]
    pub(crate) run_time: Duration,
    /// Limit of the p95 latency of each kind of request.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time)]
    p95: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Steady {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of concurrent users.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(2..=20_000))]
    pub(crate) users: u32,
    /// Length of the run. Whole seconds.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    run_time: Option<Duration>,
    /// Average pause of a user between two requests.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) pause: Duration,
    /// Limit of the p95 latency of each kind of request.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    p95: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Spike {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Buyers per second.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Time during which buyers arrive.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) duration: Duration,
    /// Number of connections. A buyer who finds all of them busy waits, and the wait counts as latency.
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=4_000))]
    pub(crate) connections: u32,
    /// Limit of the p95 latency, from each buyer's arrival.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time)]
    p95: Duration,
}

/// Options of all scenarios.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Create a sale with this many units and use it. Without this option, use the default sale as it is.
    ///
    /// Buyers of a created sale use only the by-sale endpoints, because the single-sale endpoints support only the
    /// default sale. Half of them send a CSRF token, which the by-sale endpoints accept if it is valid.
    #[arg(long, value_name = "UNITS", value_parser = value_parser!(u64).range(1..))]
    pub(crate) stock: Option<u64>,
    /// URL of the load balancer. Without this option, use the system that `cargo xtask up` runs.
    #[arg(long, value_name = "URL", value_parser = address, requires_all = ["admin_url", "admin_token"])]
    pub(crate) host: Option<String>,
    /// URL of a node, for `duplicates`. May be repeated.
    #[arg(long, value_name = "URL", value_parser = address, requires = "host")]
    pub(crate) node: Vec<String>,
    /// URL of a coordinator, for the audit.
    #[arg(long, value_name = "URL", value_parser = address, requires = "host")]
    pub(crate) admin_url: Option<String>,
    /// Bearer token of the admin API.
    #[arg(long, value_name = "TOKEN", env = "ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
    /// URL of a ledger, for its audit. Without this option, it is audited if `cargo xtask up` runs one.
    #[arg(long, value_name = "URL", value_parser = address, requires_all = ["host", "ledger_token"])]
    pub(crate) ledger_url: Option<String>,
    /// Bearer token of the ledger's API.
    #[arg(long, value_name = "TOKEN", env = "LEDGER_TOKEN", hide_env_values = true)]
    pub(crate) ledger_token: Option<String>,
    /// Folder of `up.json` and of the reports.
    #[arg(long, value_name = "PATH", env = "LOADTEST_FOLDER", default_value = ".local")]
    pub(crate) folder: PathBuf,
    /// Folder for the reports of this run. By default `loadtest/SCENARIO` in `--folder`.
    #[arg(long, value_name = "PATH")]
    report: Option<PathBuf>,
    /// Number of errors that are allowed.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    errors: u64,
    /// Show Goose's log.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Parses the options of this process. Handles `--help` and `--version`, and ends the process when an option is
/// invalid.
pub(crate) fn parse() -> Options {
    try_parse(std::env::args_os()).unwrap_or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => exit::exit_with_usage_error(&error),
    })
}

fn try_parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, clap::Error> {
    Options::try_parse_from(arguments)
}

impl Scenario {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Rush(_) => "rush",
            Self::Duplicates(_) => "duplicates",
            Self::Browse(_) => "browse",
            Self::Soak(_) => "soak",
            Self::Spike(_) => "spike",
        }
    }

    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Rush(rush) => &rush.common,
            Self::Duplicates(duplicates) => &duplicates.common,
            Self::Browse(steady) | Self::Soak(steady) => &steady.common,
            Self::Spike(spike) => &spike.common,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let p95 = match self {
            Self::Rush(rush) => rush.p95,
            Self::Duplicates(duplicates) => duplicates.p95,
            Self::Browse(steady) | Self::Soak(steady) => steady.p95,
            Self::Spike(spike) => spike.p95,
        };
        Limits { p95, errors: self.common().errors }
    }

    /// Returns the folder for the reports.
    pub(crate) fn reports(&self) -> PathBuf {
        let common = self.common();
        let default = || common.folder.join("loadtest").join(self.name());
        common.report.clone().unwrap_or_else(default)
    }

    /// Returns true when the scenario's users buy.
    pub(crate) fn buys(&self) -> bool {
        !matches!(self, Self::Browse(_))
    }
}

impl Steady {
    /// Returns the length of the run, or `default` if none is given.
    pub(crate) fn run_time_or(&self, default: Duration) -> Duration {
        self.run_time.unwrap_or(default)
    }
}

impl Common {
    /// Returns the path of the file that `cargo xtask up` writes.
    pub(crate) fn up_json(&self) -> PathBuf {
        Path::join(&self.folder, "up.json")
    }
}

fn time(text: &str) -> Result<Duration> {
    let time: SignedDuration =
        text.parse().with_context(|| format!("`{text}` is not a time such as `90s` or `100ms`"))?;
    Duration::try_from(time).context("a time is not negative")
}

/// Parses a time in whole seconds, as Goose's plans require.
fn seconds(text: &str) -> Result<Duration> {
    let time = time(text)?;
    anyhow::ensure!(time.subsec_nanos() == 0 && !time.is_zero(), "`{text}` is not a whole number of seconds");
    Ok(time)
}

/// Parses a URL with scheme, host and port only: paths are added to it.
fn address(text: &str) -> Result<String> {
    let url: Url = text.parse().with_context(|| format!("`{text}` is not a URL"))?;
    anyhow::ensure!(
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none(),
        "`{text}` is not like `http://shop.example:8080`"
    );
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Options, clap::Error> {
        try_parse(format!("flashsale-loadtest {line}").split(' ').map(OsString::from))
    }

    #[test]
    fn command_line_is_valid() {
        Options::command().debug_assert();
    }

    #[test]
    fn each_scenario_has_valid_defaults() {
        for name in ["rush", "duplicates", "browse", "soak", "spike"] {
            let scenario = parsed(name).unwrap().scenario;
            assert_eq!(scenario.name(), name);
            assert_eq!(scenario.limits().errors, 0);
            assert!(scenario.limits().p95 >= Duration::from_millis(100));
            assert_eq!(scenario.reports(), Path::new(".local/loadtest").join(name));
        }
    }

    #[test]
    fn remote_system_needs_all_addresses() {
        assert!(parsed("rush --host http://shop:80 --admin-url http://admin:3100 --admin-token x").is_ok());
        assert!(parsed("rush --host http://shop:80 --admin-token x").is_err(), "without an audit");
        assert!(parsed("rush --admin-url http://admin:3100").is_err(), "another system's audit");
        let remote = "rush --host http://shop:80 --admin-url http://admin:3100 --admin-token x --ledger-url http://led:3200";
        assert!(parsed(&format!("{remote} --ledger-token y")).is_ok());
        assert!(parsed(remote).is_err(), "a ledger without a token");
    }

    #[test]
    fn invalid_options_are_refused() {
        for line in [
            "",
            "stampede",
            "rush --users 0",
            "rush --step 1500ms",
            "rush --step 0s",
            "rush --pause soon",
            "rush --stock 0",
            "spike --rate 0",
            "rush --p95 -1s",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn address_has_no_path() {
        assert_eq!(address("http://shop.example:8080/").unwrap(), "http://shop.example:8080");
        for wrong in ["shop.example:8080", "ftp://shop", "http://shop/api", "http://shop/?a=b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
