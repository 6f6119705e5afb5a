//! Load by `wrk`: as many requests as the server answers over a fixed number of connections.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

const SCRIPT: &str = include_str!("wrk.lua");
/// Requests after which a connection closes, in a load of closing connections.
const REQUESTS_A_CONNECTION: u32 = 25;
/// Connections of a load of closing connections.
const CLOSING_CONNECTIONS: u16 = 256;
/// Part of the requests that may end in an error of their socket. A busy machine has a few timeouts at 1,000 connections.
const ERRORS_MAX: f64 = 0.01;

/// The connections of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) count: u16,
    /// Each connection closes after [`REQUESTS_A_CONNECTION`] requests.
    pub(super) closing: bool,
}

impl Connections {
    pub(super) const fn open(count: u16) -> Self {
        Self { count, closing: false }
    }

    pub(super) fn name(self) -> String {
        match self.closing {
            true => format!("{} connections that close after {REQUESTS_A_CONNECTION} requests", self.count),
            false => format!("{} connections", self.count),
        }
    }
}

impl FromStr for Connections {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "closing" {
            return Ok(Self { count: CLOSING_CONNECTIONS, closing: true });
        }
        match text.parse() {
            Ok(count @ 1..) => Ok(Self::open(count)),
            _ => bail!("`{text}` is neither a number of connections, 1 to 65535, nor `closing`"),
        }
    }
}

/// The requests of a load.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    kind: &'static str,
    path: &'static str,
    prefix: String,
    users: u32,
    sales: u32,
}

impl Requests {
    /// Purchases, each by a new user. The prefix keeps the user ids of two runs apart.
    pub(super) fn purchases(path: &'static str, prefix: impl Into<String>) -> Self {
        Self { kind: "purchase", path, prefix: prefix.into(), users: 0, sales: 0 }
    }

    /// Purchases by the same users again and again.
    pub(super) fn repeated(path: &'static str, prefix: &str, users: u32) -> Self {
        Self { users, ..Self::purchases(path, prefix) }
    }

    /// Lookups of the purchases of these users.
    pub(super) fn lookups(path: &'static str, prefix: &str, users: u32) -> Self {
        Self { kind: "lookup", ..Self::repeated(path, prefix, users) }
    }

    /// Reads of a sale's status.
    pub(super) fn status(path: &'static str) -> Self {
        Self { kind: "status", ..Self::purchases(path, "") }
    }

    /// The same purchases, spread over the sales `open-0`, `open-1`, ….
    pub(super) fn over_sales(self, sales: u32) -> Self {
        Self { sales, ..self }
    }
}

/// The load generator.
#[derive(Clone, Debug)]
pub(super) struct Wrk {
    script: PathBuf,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
    pub(super) p99_ms: f64,
    /// Answers with a status other than success.
    pub(super) refused: f64,
}

impl Wrk {
    /// Writes the script into this folder.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let script = folder.join("wrk.lua");
        std::fs::write(&script, SCRIPT)?;
        Ok(Self { script })
    }

    /// Runs for this time. Dropping the future ends the load.
    pub(super) async fn run(
        &self,
        url: &str,
        requests: &Requests,
        connections: Connections,
        duration: Duration,
    ) -> Result<Report> {
        let Requests { kind, path, prefix, users, sales } = requests;
        let closing = if connections.closing { REQUESTS_A_CONNECTION } else { 0 };
        let output = Command::new("wrk")
            .args(["-t1", "--latency", "-s"])
            .arg(&self.script)
            .args([format!("-c{}", connections.count), format!("-d{}s", duration.as_secs().max(1))])
            .args([format!("{url}{path}"), "--".into(), (*kind).into(), prefix.clone()])
            .args([users.to_string(), closing.to_string(), sales.to_string()])
            .kill_on_drop(true)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed:\n{text}{}", String::from_utf8_lossy(&output.stderr));
        Report::parse(&text).with_context(|| format!("wrk reported:\n{text}"))
    }
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        let requests: f64 = number_before(text, " requests in").context("no number of requests")?;
        ensure!(requests > 0.0, "no request was answered");
        let errors = socket_errors(text).context("a line of socket errors that cannot be read")?;
        ensure!(errors <= requests * ERRORS_MAX, "{errors} socket errors");
        Ok(Self {
            requests,
            requests_per_second: number_after(text, "Requests/sec:").context("no rate")?,
            p99_ms: latency_ms(text, "99%").context("no percentiles")?,
            refused: number_after(text, "Non-2xx or 3xx responses:").unwrap_or_default(),
        })
    }
}

fn number_before(report: &str, label: &str) -> Option<f64> {
    report.lines().find_map(|line| line.split_once(label))?.0.trim().parse().ok()
}

fn number_after(report: &str, label: &str) -> Option<f64> {
    report.lines().find_map(|line| line.trim().strip_prefix(label))?.trim().parse().ok()
}

/// Sums the numbers of `Socket errors: connect 0, read 1, write 0, timeout 2`. A report without errors has no such line.
fn socket_errors(report: &str) -> Option<f64> {
    let Some(line) = report.lines().find_map(|line| line.trim().strip_prefix("Socket errors:")) else {
        return Some(0.0);
    };
    line.split(',').map(|error| error.trim().split_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Returns a percentile from wrk's report in milliseconds. The report gives it in `us`, `ms` or `s`.
fn latency_ms(report: &str, percentile: &str) -> Option<f64> {
    let text = report.lines().find_map(|line| line.trim().strip_prefix(percentile))?.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    match unit {
        "us" => Some(number / 1e3),
        "ms" => Some(number),
        "s" => Some(number * 1e3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
  Latency Distribution
     50%    7.12ms
     99%    1.02s
  123456 requests in 8.00s, 20.00MB read
  Socket errors: connect 0, read 3, write 0, timeout 4
  Non-2xx or 3xx responses: 123
Requests/sec:  15432.10
";

    #[test]
    fn report_of_wrk_is_parsed() {
        let expected =
            Report { requests: 123_456.0, requests_per_second: 15_432.1, p99_ms: 1020.0, refused: 123.0 };
        assert_eq!(Report::parse(REPORT).unwrap(), expected);
        assert_eq!(socket_errors(REPORT), Some(7.0));
        assert_eq!(latency_ms(REPORT, "50%"), Some(7.12));
        assert_eq!(latency_ms("99%  812.00us", "99%"), Some(0.812));
    }

    #[test]
    fn report_with_many_socket_errors_is_refused() {
        let broken = REPORT.replace("timeout 4", "timeout 40000");
        assert!(Report::parse(&broken).unwrap_err().to_string().contains("40003 socket errors"));
        let unanswered = REPORT.replace("123456 requests in", "0 requests in");
        assert!(Report::parse(&unanswered).is_err());
        assert!(Report::parse("").is_err());
    }

    #[test]
    fn connections_are_parsed() {
        assert_eq!("64".parse::<Connections>().unwrap(), Connections::open(64));
        assert_eq!("closing".parse::<Connections>().unwrap(), Connections { count: 256, closing: true });
        for wrong in ["0", "-1", "70000", "many", ""] {
            assert!(wrong.parse::<Connections>().is_err(), "{wrong}");
        }
    }
}
