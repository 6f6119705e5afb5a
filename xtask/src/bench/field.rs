//! All systems that a benchmark compares, started side by side, and one measurement of one of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buyers::AnswerKind;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use testkit::ports::{self, PortBlock};
use testkit::stack::{Programs, SaleOptions};
use testkit::{
    BuildProfile, BuyerResult, Launch, OpenLoop, Process, RedisServer, Stack, StackOptions, until, until_ok,
};

use super::meter::{CpuTime, Meter};
use super::wrk::{Connections, Report, Requests, Wrk};
use crate::up::build;

pub(super) const SHARDS: u32 = 12;
/// More units than a run can sell, so that every measured request is a successful purchase.
const STOCK: u64 = 100_000_000;
/// Users of requests that repeat. They have bought before.
const REPEATING_USERS: u32 = 1_000;
const REPEATING: &str = "repeating";
const PURCHASE: &str = "/api/sale/purchase";
const SOLD_OUT: &str = "/api/sales/sold-out/purchase";
const BEFORE_START: &str = "/api/sales/later/purchase";
/// Time limit for any expected change.
const LIMIT: Duration = Duration::from_secs(30);
/// Limits per user and per address are on, as in production, and no request of the load exceeds them. The exempted
/// network is one for documentation, so it has no clients.
const LIMITS: [(&str, &str); 2] = [("RATE_LIMIT_EXEMPT", "192.0.2.0/24"), ("RATE_LIMIT_MAX", "1000000000")];

/// A kind of request to a system. Each is a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Row {
    /// A bare axum handler that reads and returns the same JSON.
    Bare,
    /// Purchases of distinct users with `DURABILITY=none`.
    WithoutBarrier,
    /// Purchases of distinct users, confirmed by the replicas.
    Purchase,
    /// The same with the node program of `--against`.
    Against,
    /// Purchases by users who have a unit.
    AlreadyPurchased,
    /// Purchases after the last unit.
    SoldOut,
    /// Purchases before the sale starts.
    BeforeStart,
    /// Reads of the sale's status.
    Status,
    /// Lookups of a user's purchase.
    Lookup,
    /// Purchases through nginx.
    Nginx,
    /// The usual design: one Redis server, one script call a request, no replica.
    Classic,
    /// The bare handler at half of the highest rate of purchases, however fast it answers.
    SteadyBare,
    /// Purchases at the same rate.
    SteadyPurchase,
}

impl Row {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The row whose figures this one's are divided by.
    pub(super) fn base(self) -> Self {
        match self {
            Self::SteadyBare | Self::SteadyPurchase => Self::SteadyBare,
            _ => Self::Bare,
        }
    }

    /// Returns true when every answer of the row is a refusal.
    fn is_refused(self) -> bool {
        matches!(self, Self::AlreadyPurchased | Self::SoldOut | Self::BeforeStart)
    }
}

/// The figures of one measurement.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    pub(super) row: Row,
    pub(super) connections: u16,
    pub(super) closing: bool,
    pub(super) round: usize,
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
    pub(super) p99_ms: f64,
    /// CPU time of a request in microseconds.
    pub(super) cpu_us: CpuTime,
    /// Calls of functions in Redis for each request, those of the background included.
    pub(super) calls: f64,
}

/// Programs of a benchmark.
#[derive(Clone, Debug)]
pub(super) struct FieldPrograms {
    pub(super) programs: Programs,
    pub(super) bare: PathBuf,
    classic: Option<PathBuf>,
    against: Option<PathBuf>,
}

impl FieldPrograms {
    pub(super) fn build(profile: &str, with_classic: bool, against: Option<PathBuf>) -> Result<Self> {
        if let Some(program) = &against {
            ensure!(program.is_file(), "{} is not a node program", program.display());
        }
        let examples = BuildProfile::of_this_program()?.named(profile);
        Ok(Self {
            programs: build(profile, false)?,
            bare: examples.build_example("bare_handler")?,
            classic: with_classic.then(|| examples.build_example("classic_sale")).transpose()?,
            against,
        })
    }
}

/// The systems, each running.
pub(super) struct Field {
    wrk: Wrk,
    bare: Server,
    classic: Option<(Server, RedisServer)>,
    node: PathBuf,
    against: Option<PathBuf>,
    stack: Stack,
}

/// A program of one process.
pub(super) struct Server {
    process: Process,
    pub(super) url: String,
    _port: PortBlock,
}

impl Field {
    /// Starts all systems. The sales are open, sold out, and not open yet.
    pub(super) async fn start(programs: &FieldPrograms) -> Result<Self> {
        let sale = SaleOptions {
            total_stock: STOCK,
            shards: Some(SHARDS),
            duration: Duration::from_hours(12),
            ..SaleOptions::default()
        };
        let stack = StackOptions {
            nodes: 1,
            programs: Some(programs.programs.clone()),
            sale,
            node_environment: LIMITS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..StackOptions::default()
        };
        let stack = Stack::start(stack, |_| ()).await?;
        let classic = match &programs.classic {
            Some(program) => {
                let redis = RedisServer::start().await?;
                Some((Server::start(program, &stack, &[redis.url()]).await?, redis))
            }
            None => None,
        };
        let field = Self {
            wrk: Wrk::new(stack.folder().path())?,
            bare: Server::start(&programs.bare, &stack, &[]).await?,
            classic,
            node: programs.programs.node.clone(),
            against: programs.against.clone(),
            stack,
        };
        field.prepare_sales().await?;
        Ok(field)
    }

    /// Measures one row. A steady row needs the rate.
    pub(super) async fn measure(
        &self,
        row: Row,
        connections: Connections,
        round: usize,
        duration: Duration,
        rate: Option<u32>,
    ) -> Result<Sample> {
        let node = self.node_url()?;
        let other_node = match row {
            Row::Against => {
                let program = self.against.as_ref().context("`against` needs `--against`")?;
                Some(self.stack.start_separate_node(program, &[]).await?)
            }
            Row::WithoutBarrier => {
                let durability = [("DURABILITY".to_owned(), "none".to_owned())];
                Some(self.stack.start_separate_node(&self.node, &durability).await?)
            }
            _ => None,
        };
        let url = match row {
            Row::Bare | Row::SteadyBare => self.bare.url.clone(),
            Row::Nginx => self.stack.url(),
            Row::Classic => self.classic()?.0.url.clone(),
            _ => other_node.as_ref().map_or(node, |other| other.url().to_owned()),
        };
        let meter = self.meter(row, other_node.as_ref().map(|other| other.process().pid())).await?;
        let calls = async || anyhow::Ok(self.stack.redis().command_stats("fcall").await?.calls);
        let (calls_before, before) = (calls().await?, meter.read());
        let run = format!("{}-{}-{round}", row.name(), connections.count);
        let report = match rate {
            Some(rate) => steady(&url, &run, connections, duration, rate).await?,
            None => self.wrk.run(&url, &row.requests(&run), connections, duration).await?,
        };
        let (after, calls) = (meter.read(), calls().await? - calls_before);
        row.ensure_expected(report)?;
        let uses_redis = !matches!(row, Row::Bare | Row::SteadyBare | Row::Classic);
        Ok(Sample {
            row,
            connections: connections.count,
            closing: connections.closing,
            round,
            requests: report.requests,
            requests_per_second: report.requests_per_second,
            p99_ms: report.p99_ms,
            cpu_us: after.since(before, report.requests),
            calls: if uses_redis { calls as f64 / report.requests } else { 0.0 },
        })
    }

    /// Audits the open sale, and stops everything.
    pub(super) async fn stop(self) -> Result<u64> {
        let audit = self.stack.audit("flash").await?;
        ensure!(audit.ok, "the audit found {:?}", audit.violations);
        self.stack.stop().await?;
        Ok(audit.sold)
    }

    async fn prepare_sales(&self) -> Result<()> {
        let coordinator =
            self.stack.coordinators().first().context("the stack has a coordinator")?.url().to_owned();
        for (id, units, starts_at) in [("sold-out", SHARDS, "0s"), ("later", SHARDS, "12h")] {
            let sale = json!({
                "id": id, "totalStock": units, "shards": SHARDS, "startsAt": starts_at, "endsAt": "24h",
                "productName": "Lamp", "productPrice": 5.0,
            });
            self.stack.admin().create(&coordinator, &sale).await?;
            until_ok("status of a sale", LIMIT, async || self.stack.status_of(id).await.map(drop)).await?;
        }
        for path in [PURCHASE, SOLD_OUT] {
            until_ok("purchases of the users that repeat", LIMIT, || self.let_all_buy(path)).await?;
        }
        let is_sold_out = async || self.stack.status_of("sold-out").await.is_ok_and(|status| status.sold_out);
        until("the end of the stock", LIMIT, is_sold_out).await
    }

    /// Sends purchases of all repeating users. Fails unless all of them had bought before, or found nothing left.
    async fn let_all_buy(&self, path: &'static str) -> Result<()> {
        let requests = Requests::repeated(path, REPEATING, REPEATING_USERS);
        let (connections, duration) = (Connections::open(64), Duration::from_secs(1));
        let report = self.wrk.run(&self.node_url()?, &requests, connections, duration).await?;
        ensure!(
            report.refused == report.requests && report.requests >= f64::from(REPEATING_USERS),
            "{} of {} requests were refused",
            report.refused,
            report.requests
        );
        Ok(())
    }

    fn node_url(&self) -> Result<String> {
        Ok(self.stack.nodes().first().context("the stack has a node")?.url().to_owned())
    }

    fn classic(&self) -> Result<&(Server, RedisServer)> {
        self.classic.as_ref().context("the classic design was not built")
    }

    async fn meter(&self, row: Row, other_node: Option<u32>) -> Result<Meter> {
        let meter = match row {
            Row::Bare | Row::SteadyBare => Meter { servers: vec![self.bare.pid()], ..Meter::default() },
            Row::Classic => {
                let (server, redis) = self.classic()?;
                let primaries = vec![redis.process().pid()];
                Meter { servers: vec![server.pid()], primaries, ..Meter::default() }
            }
            _ => {
                let node = self.stack.nodes().first().context("the stack has a node")?.process().pid();
                Meter::of_stack(&self.stack, vec![other_node.unwrap_or(node)]).await
            }
        };
        Ok(if row == Row::Nginx { meter.with_nginx(&self.stack) } else { meter })
    }
}

impl Server {
    /// Starts a program that takes its port as the first argument, and waits until it listens.
    pub(super) async fn start(program: &Path, stack: &Stack, arguments: &[String]) -> Result<Self> {
        let block = PortBlock::take()?;
        let port = block.first();
        let name = program.file_name().context("the program has a name")?.to_string_lossy();
        let launch = Launch::new(name, program, stack.folder().path()).arg(port.to_string());
        let process = launch.args(arguments).spawn()?;
        until("the server listens", LIMIT, async || !ports::is_free(port)).await?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}"), _port: block })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Row {
    fn requests(self, run: &str) -> Requests {
        match self {
            Self::AlreadyPurchased => Requests::repeated(PURCHASE, REPEATING, REPEATING_USERS),
            Self::Lookup => Requests::lookups(PURCHASE, REPEATING, REPEATING_USERS),
            Self::SoldOut => Requests::purchases(SOLD_OUT, run),
            Self::BeforeStart => Requests::purchases(BEFORE_START, run),
            Self::Status => Requests::status("/api/sale/status"),
            _ => Requests::purchases(PURCHASE, run),
        }
    }

    /// Checks that the answers were those that the row is about.
    fn ensure_expected(self, report: Report) -> Result<()> {
        let Report { requests, refused, .. } = report;
        let expected = if self.is_refused() { requests } else { 0.0 };
        ensure!(
            refused == expected,
            "{}: {refused} of {requests} requests were refused, not {expected}",
            self.name()
        );
        Ok(())
    }
}

/// Sends requests at a steady rate.
async fn steady(
    url: &str,
    run: &str,
    connections: Connections,
    duration: Duration,
    rate: u32,
) -> Result<Report> {
    let load = OpenLoop {
        addr: url.trim_start_matches("http://").parse()?,
        host: "sale".into(),
        path: PURCHASE.into(),
        users: run.to_owned(),
        rate,
        duration,
        connections: connections.count.into(),
    };
    let results = load.run().await?;
    let refused = results.iter().filter(|result| result.answer.kind != AnswerKind::Purchased).count();
    let mut latencies: Vec<Duration> = results.iter().map(|BuyerResult { latency, .. }| *latency).collect();
    latencies.sort();
    let p99 = latencies
        .get((latencies.len() * 99).div_ceil(100).saturating_sub(1))
        .context("no request was sent")?;
    Ok(Report {
        requests: results.len() as f64,
        requests_per_second: results.len() as f64 / duration.as_secs_f64(),
        p99_ms: p99.as_secs_f64() * 1e3,
        refused: refused as f64,
    })
}
