//! Speed benchmark: one node and all Redis processes behind it, compared with a bare axum handler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use testkit::stack::SaleOptions;
use testkit::{BuildProfile, Launch, Process, Stack, StackOptions, ports, procfs, until};

use super::median;
use crate::install;
use crate::up::build;

const SCRIPT: &str = include_str!("purchase.lua");
/// More units than a run can sell, so that every measured request is a successful purchase.
const STOCK: u64 = 100_000_000;
const SHARDS: u32 = 12;

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Number of connections that wrk keeps busy.
    #[arg(long, default_value_t = 256)]
    connections: u16,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Number of measurements of each program, in alternating order.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A second node program to measure in the same rounds, for example a build of the previous commit.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 256, seconds: 8, rounds: 3, against: None }
    }
}

/// Result of one measurement.
#[derive(Clone, Copy, Debug)]
struct Figures {
    requests_per_second: f64,
    p99_ms: f64,
    /// CPU time of the measured server, in microseconds per request.
    server_us: f64,
    /// CPU time of all Redis processes, in microseconds per request.
    redis_us: f64,
}

impl Figures {
    fn cpu_us(self) -> f64 {
        self.server_us + self.redis_us
    }
}

pub(crate) async fn bench(options: Options) -> Result<()> {
    install::ensure_installed(&[install::REDIS, install::NGINX, install::WRK])?;
    let release = BuildProfile::of_this_program()?.named("release");
    let programs = build("release", false)?;
    let baseline = release.build_example("bare_handler")?;

    let sale = SaleOptions { total_stock: STOCK, shards: Some(SHARDS), ..SaleOptions::default() };
    let stack = StackOptions { nodes: 1, programs: Some(programs), sale, ..StackOptions::default() };
    let stack = Stack::start(stack, |_| ()).await?;
    let script = stack.folder().path().join("purchase.lua");
    std::fs::write(&script, SCRIPT)?;
    let (bare, bare_url) = start_baseline(&baseline, stack.folder().path()).await?;
    let node = stack.nodes().first().context("the stack has a node")?.clone();
    let other = match &options.against {
        Some(program) => Some(stack.start_separate_node(program, &[]).await?),
        None => None,
    };

    say!(
        "purchases of distinct users, {} connections, {SHARDS} shards on 3 primaries + 3 replicas,",
        options.connections
    );
    say!("AOF always, one node, {} rounds of {} s each, in turn:\n", options.rounds, options.seconds);
    say!("{:>6}  {:>12} {:>10} {:>14} {:>15}", "", "requests/s", "p99 ms", "server us/req", "Redis us/req");
    let (mut ratios, mut to_other) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let measure = |url: &str, server: &Process, redis| {
            measure(&options, &script, url, &format!("{round}-{}", server.pid()), server, redis)
        };
        let bare = measure(&bare_url, &bare, None)?;
        let ours = measure(node.url(), &node.process(), Some(&stack))?;
        let other =
            other.as_ref().map(|other| measure(other.url(), &other.process(), Some(&stack))).transpose()?;
        let sides = [("bare", bare), ("node", ours)].into_iter().chain(other.map(|other| ("other", other)));
        for (side, figures) in sides {
            let Figures { requests_per_second, p99_ms, server_us, redis_us } = figures;
            say!("{side:>6}  {requests_per_second:12.0} {p99_ms:10.1} {server_us:14.1} {redis_us:15.1}");
        }
        ratios.push((ours.server_us / bare.cpu_us(), ours.cpu_us() / bare.cpu_us()));
        to_other
            .extend(other.map(|other| (ours.server_us / other.server_us, ours.cpu_us() / other.cpu_us())));
    }
    say!(
        "\nCPU of a purchase, in bare handlers (median): node {:.2}, with all of Redis {:.2}",
        median(ratios.iter().map(|ratio| ratio.0)),
        median(ratios.iter().map(|ratio| ratio.1))
    );
    if !to_other.is_empty() {
        say!(
            "against the other node program (median): node {:.2}, with all of Redis {:.2}",
            median(to_other.iter().map(|ratio| ratio.0)),
            median(to_other.iter().map(|ratio| ratio.1))
        );
    }
    let audit = stack.audit("flash").await?;
    ensure!(audit.ok, "the audit found {:?}", audit.violations);
    say!("audit: ok, {} sold", audit.sold);
    bare.kill();
    stack.stop().await
}

async fn start_baseline(program: &Path, folder: &Path) -> Result<(Process, String)> {
    let block = ports::PortBlock::take()?;
    let port = block.first();
    let process = Launch::new("bare-handler", program, folder).arg(port.to_string()).spawn()?;
    until("the bare handler listens", Duration::from_secs(5), async || !ports::is_free(port)).await?;
    Ok((process, format!("http://127.0.0.1:{port}")))
}

fn measure(
    options: &Options,
    script: &Path,
    url: &str,
    run: &str,
    server: &Process,
    redis: Option<&Stack>,
) -> Result<Figures> {
    let cpu = || {
        let redis = redis.map_or(Duration::ZERO, |stack| stack.redis().cpu_time());
        (procfs::cpu_time(server.pid()).unwrap_or_default(), redis)
    };
    let before = cpu();
    let output = Command::new("wrk")
        .args(["-t1", "--latency"])
        .args([format!("-c{}", options.connections), format!("-d{}s", options.seconds)])
        .arg("-s")
        .arg(script)
        .arg(format!("{url}/api/sale/purchase"))
        .args(["--", run])
        .output()?;
    let after = cpu();
    let report = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && !report.contains("Non-2xx"), "wrk failed:\n{report}");
    let requests: f64 = number_before(&report, " requests in").context("wrk names its requests")?;
    let per_request = |spent: Duration| spent.as_secs_f64() * 1e6 / requests;
    Ok(Figures {
        requests_per_second: number_after(&report, "Requests/sec:").context("wrk names its rate")?,
        p99_ms: latency_ms(&report, "99%").context("wrk names its percentiles")?,
        server_us: per_request(after.0 - before.0),
        redis_us: per_request(after.1 - before.1),
    })
}

fn number_before(report: &str, label: &str) -> Option<f64> {
    report.lines().find_map(|line| line.split_once(label))?.0.trim().parse().ok()
}

fn number_after(report: &str, label: &str) -> Option<f64> {
    report.lines().find_map(|line| line.trim().strip_prefix(label))?.trim().parse().ok()
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
Requests/sec:  15432.10
";

    #[test]
    fn wrk_report_is_parsed() {
        assert_eq!(number_before(REPORT, " requests in"), Some(123_456.0));
        assert_eq!(number_after(REPORT, "Requests/sec:"), Some(15_432.1));
        assert_eq!(latency_ms(REPORT, "50%"), Some(7.12));
        assert_eq!(latency_ms(REPORT, "99%"), Some(1020.0));
    }
}
