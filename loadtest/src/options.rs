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
  1   no verdict: something could not be reached or written
  2   a promise was broken: oversold, bought twice, a purchase lost, or an audit that is not in order
  3   a threshold was missed
  64  an option that cannot be";

/// Loads a running flash sale like a crowd, and audits what it told its buyers.
#[derive(Debug, Parser)]
#[command(name = "flashsale-loadtest", version, after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// A crowd that grows to 1000 people and goes again: they look, buy, and look their purchase up.
    Rush(Rush),
    /// Everybody buys many times at once, by many ways: only one order may ever be told.
    Duplicates(Duplicates),
    /// People who only look: the status, and server-sent events.
    Browse(Steady),
    /// A moderate crowd for a long time.
    Soak(Steady),
    /// The opening second, open-loop: buyers come at a rate, however slow the answers are.
    Spike(Spike),
}

#[derive(Debug, Args)]
pub(crate) struct Rush {
    #[command(flatten)]
    pub(crate) common: Common,
    /// People at the height of it; the steps before are a tenth and a half of them.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(10..=20_000))]
    pub(crate) users: u32,
    /// How long each of the five steps takes: up, up, up, stay, down. Whole seconds.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = seconds)]
    pub(crate) step: Duration,
    /// How long a person pauses between two clicks, on average.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) pause: Duration,
    /// The longest that 95 % of the requests of each name may take.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    p95: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Duplicates {
    #[command(flatten)]
    pub(crate) common: Common,
    /// People at a time.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1_000))]
    pub(crate) users: u32,
    /// Purchases that each of them sends at once.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u32).range(2..=1_000))]
    pub(crate) copies: u32,
    /// How long they keep coming. Whole seconds.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seconds)]
    pub(crate) run_time: Duration,
    /// The longest that 95 % of the requests of each name may take.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time)]
    p95: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Steady {
    #[command(flatten)]
    pub(crate) common: Common,
    /// People at a time.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(2..=20_000))]
    pub(crate) users: u32,
    /// How long they stay. Whole seconds.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    run_time: Option<Duration>,
    /// How long a person pauses between two clicks, on average.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) pause: Duration,
    /// The longest that 95 % of the requests of each name may take.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    p95: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Spike {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Buyers a second.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// How long they keep coming.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub(crate) duration: Duration,
    /// Connections they share. One more buyer than this at a time is late, and counts as late.
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=4_000))]
    pub(crate) connections: u32,
    /// The longest that 95 % of them may have to wait, from when they came.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time)]
    p95: Duration,
}

/// What every scenario is told.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Open a sale of so many units and load that one; the default sale as it is if not given.
    ///
    /// Buyers of another sale than the default one use the first family of calls alone. Half of them send a CSRF token,
    /// which that family takes if it is good.
    #[arg(long, value_name = "UNITS", value_parser = value_parser!(u64).range(1..))]
    pub(crate) stock: Option<u64>,
    /// Where buyers reach the sale; what `cargo xtask up` runs if not given.
    #[arg(long, value_name = "URL", value_parser = address, requires_all = ["admin_url", "admin_token"])]
    pub(crate) host: Option<String>,
    /// A node's own address, for the duplicates; may be repeated.
    #[arg(long, value_name = "URL", value_parser = address, requires = "host")]
    pub(crate) node: Vec<String>,
    /// A coordinator, for the audit.
    #[arg(long, value_name = "URL", value_parser = address, requires = "host")]
    pub(crate) admin_url: Option<String>,
    /// What the coordinator wants as bearer token.
    #[arg(long, value_name = "TOKEN", env = "ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<String>,
    /// Where `up.json` lies and reports go.
    #[arg(long, value_name = "PATH", env = "LOADTEST_FOLDER", default_value = ".local")]
    pub(crate) folder: PathBuf,
    /// Where the reports of this run go; `loadtest/SCENARIO` in the folder if not given.
    #[arg(long, value_name = "PATH")]
    report: Option<PathBuf>,
    /// As many errors are allowed.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    errors: u64,
    /// Show Goose's own log.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// The options of this process. Answers `--help` and `--version`, and ends the process over a bad one.
pub(crate) fn parse() -> Options {
    try_parse(std::env::args_os()).unwrap_or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => exit::over_options(&error),
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

    /// Where its reports go.
    pub(crate) fn reports(&self) -> PathBuf {
        let common = self.common();
        let default = || common.folder.join("loadtest").join(self.name());
        common.report.clone().unwrap_or_else(default)
    }

    /// Whether anybody wants to buy.
    pub(crate) fn buys(&self) -> bool {
        !matches!(self, Self::Browse(_))
    }
}

impl Steady {
    /// How long the people stay, or as long as this.
    pub(crate) fn run_time_or(&self, default: Duration) -> Duration {
        self.run_time.unwrap_or(default)
    }
}

impl Common {
    /// What `up` wrote.
    pub(crate) fn up_json(&self) -> PathBuf {
        Path::join(&self.folder, "up.json")
    }
}

fn time(text: &str) -> Result<Duration> {
    let time: SignedDuration =
        text.parse().with_context(|| format!("`{text}` is not a time such as `90s` or `100ms`"))?;
    Duration::try_from(time).context("a time is not negative")
}

/// Goose's plans have whole seconds.
fn seconds(text: &str) -> Result<Duration> {
    let time = time(text)?;
    anyhow::ensure!(time.subsec_nanos() == 0 && !time.is_zero(), "`{text}` is not a whole number of seconds");
    Ok(time)
}

/// A URL's scheme, host and port: paths are added to it.
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
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn each_scenario_has_sensible_defaults() {
        for name in ["rush", "duplicates", "browse", "soak", "spike"] {
            let scenario = parsed(name).unwrap().scenario;
            assert_eq!(scenario.name(), name);
            assert_eq!(scenario.limits().errors, 0);
            assert!(scenario.limits().p95 >= Duration::from_millis(100));
            assert_eq!(scenario.reports(), Path::new(".local/loadtest").join(name));
        }
    }

    #[test]
    fn another_system_is_named_in_full() {
        assert!(parsed("rush --host http://shop:80 --admin-url http://admin:3100 --admin-token x").is_ok());
        assert!(parsed("rush --host http://shop:80 --admin-token x").is_err(), "without an audit");
        assert!(parsed("rush --admin-url http://admin:3100").is_err(), "another system's audit");
    }

    #[test]
    fn what_cannot_be_is_refused() {
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
    fn an_address_has_no_path() {
        assert_eq!(address("http://shop.example:8080/").unwrap(), "http://shop.example:8080");
        for wrong in ["shop.example:8080", "ftp://shop", "http://shop/api", "http://shop/?a=b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
