//! Ledger benchmark: speed and cost of writing orders into PostgreSQL, and their effect on purchases.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buyers::AnswerKind;
use clap::Args;
use testkit::stack::{Programs, SaleOptions};
use testkit::{BuyerResult, OpenLoop, Postgres, Process, Stack, StackOptions, procfs, until};

use super::filling::{sale_of, sell};
use super::median;
use crate::install;
use crate::up::build;

const SHARDS: u32 = 12;
/// Buyers per order entry, as a loaded node with 12 shards has them.
const BATCH: usize = 16;
/// More units than the rounds can sell.
const STOCK: u64 = 100_000_000;
const CONNECTIONS: usize = 256;
/// Time limit for any expected change.
const LIMIT: Duration = Duration::from_mins(10);

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Orders that wait in Redis when the ledger starts.
    #[arg(long, default_value_t = 1_000_000)]
    orders: u64,
    /// Purchases per second while the effect on purchases is measured.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Length of each measurement of purchases in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Number of measurements with a ledger and without, in alternating order.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Time between two looks of the ledger for new orders; its default, if not set.
    #[arg(long, value_name = "DRAIN_PERIOD")]
    period: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { orders: 1_000_000, rate: 2_000, seconds: 10, rounds: 5, period: None }
    }
}

pub(crate) async fn bench(options: Options) -> Result<()> {
    install::ensure_installed(&[install::REDIS, install::NGINX, install::POSTGRESQL])?;
    let programs = build("release", true)?;
    backlog(&options, programs.clone()).await?;
    effect_on_purchases(&options, programs).await
}

async fn start(options: &Options, programs: Programs, units: u64) -> Result<Stack> {
    let sale = SaleOptions { total_stock: units, shards: Some(SHARDS), ..SaleOptions::default() };
    let period = options.period.iter().map(|period| ("DRAIN_PERIOD".to_owned(), period.clone()));
    let options = StackOptions {
        nodes: 1,
        programs: Some(programs),
        sale,
        ledger_environment: period.collect(),
        ..StackOptions::default()
    };
    Stack::start(options, |_| ()).await
}

/// Measures how fast a ledger writes orders that wait for it.
async fn backlog(options: &Options, programs: Programs) -> Result<()> {
    // Twice the units, because stock moves between shards while they are sold.
    let stack = start(options, programs, 2 * options.orders).await?;
    let (cluster, sale) = sale_of(&stack).await?;
    sell(&cluster, &sale, options.orders, BATCH).await?;
    let postgres = stack.start_postgres().await?;
    let ledger = stack.start_ledger().await?.process();
    let (began, cpu_before) = (Instant::now(), postgres_cpu(postgres));
    let first_memory = procfs::resident_bytes(ledger.pid()).unwrap_or_default();
    wait_for_rows(postgres, options.orders).await?;
    let took = began.elapsed();
    let orders = options.orders as f64;
    let per_order = |spent: Duration| spent.as_secs_f64() * 1e6 / orders;
    say!(
        "{} orders on {SHARDS} shards wait in Redis, entries of {BATCH}; then a ledger starts:\n",
        options.orders
    );
    say!("  orders/s                  {:10.0}", orders / took.as_secs_f64());
    say!("  ledger, CPU us/order      {:10.1}", per_order(cpu(&ledger)));
    say!("  PostgreSQL, CPU us/order  {:10.1}", per_order(postgres_cpu(postgres).saturating_sub(cpu_before)));
    say!("  ledger, memory at start   {:10.1} MB", megabytes(first_memory));
    say!(
        "  ledger, most memory       {:10.1} MB",
        megabytes(procfs::peak_resident_bytes(ledger.pid()).unwrap_or_default())
    );
    say!(
        "  PostgreSQL, bytes/order   {:10.0}",
        number(postgres, "SELECT pg_total_relation_size('order_events')")? / orders
    );
    stack.stop().await
}

/// The cost of purchases in one measurement.
struct Purchases {
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of the node and all Redis processes per purchase.
    cpu_us: f64,
}

/// Measures purchases with a ledger and without one, and the time from a purchase to its row.
async fn effect_on_purchases(options: &Options, programs: Programs) -> Result<()> {
    let stack = start(options, programs, STOCK).await?;
    let postgres = stack.start_postgres().await?;
    // The time of a row is that of its commit.
    postgres.sql("ALTER SYSTEM SET track_commit_timestamp = on")?;
    postgres.restart().await?;
    let ledger = stack.start_ledger().await?;
    say!(
        "\n{} purchases per second, {CONNECTIONS} connections, one node, {} rounds of {} s with a ledger and without:\n",
        options.rate,
        options.rounds,
        options.seconds
    );
    say!("{:>8}  {:>8} {:>8} {:>22}", "ledger", "p50 ms", "p99 ms", "node + Redis us/req");
    measure(&stack, options, "warm-up").await?;
    let (mut ratios, mut sold) = (Vec::new(), 0.0);
    for round in 0..options.rounds {
        ledger.process().kill();
        let without = measure(&stack, options, &format!("without-{round}")).await?;
        ledger.restart().await?;
        wait_until_drained(&stack).await?;
        let before = number(postgres, "SELECT sum(position) FROM positions")?;
        let with = measure(&stack, options, &format!("with-{round}")).await?;
        wait_until_drained(&stack).await?;
        sold += number(postgres, "SELECT sum(position) FROM positions")? - before;
        for (side, purchases) in [("without", &without), ("with", &with)] {
            let Purchases { p50_ms, p99_ms, cpu_us } = purchases;
            say!("{side:>8}  {p50_ms:8.2} {p99_ms:8.2} {cpu_us:22.1}");
        }
        ratios.push((with.p99_ms / without.p99_ms, with.cpu_us / without.cpu_us));
    }
    say!(
        "\nwith a ledger / without (median): p99 {:.3}, CPU {:.3}",
        median(ratios.iter().map(|ratio| ratio.0)),
        median(ratios.iter().map(|ratio| ratio.1))
    );
    let delay = postgres.sql(
        "SELECT array_to_string(percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY
            1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - at)), ' ')
        FROM order_events WHERE user_id LIKE 'with-%'",
    )?;
    let delay: Vec<f64> = delay.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    say!(
        "from a purchase to its row, {sold:.0} orders: p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms",
        delay[0],
        delay[1],
        delay[2]
    );
    stack.stop().await
}

async fn measure(stack: &Stack, options: &Options, users: &str) -> Result<Purchases> {
    let node = stack.nodes().first().context("the stack has a node")?.clone();
    let load = OpenLoop {
        addr: node.url().trim_start_matches("http://").parse()?,
        host: "sale".into(),
        path: "/api/sale/purchase".into(),
        users: users.to_owned(),
        rate: options.rate,
        duration: Duration::from_secs(options.seconds),
        connections: CONNECTIONS,
    };
    let spent = || stack.redis().cpu_time() + cpu(&node.process());
    let before = spent();
    let results = load.run().await?;
    let spent = spent() - before;
    let sold = results.iter().filter(|result| result.answer.kind == AnswerKind::Purchased).count();
    ensure!(sold == results.len(), "{sold} of {} requests bought a unit", results.len());
    let mut latencies: Vec<f64> =
        results.iter().map(|BuyerResult { latency, .. }| latency.as_secs_f64() * 1e3).collect();
    latencies.sort_by(f64::total_cmp);
    let quantile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(Purchases {
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        cpu_us: spent.as_secs_f64() * 1e6 / sold as f64,
    })
}

async fn wait_until_drained(stack: &Stack) -> Result<()> {
    let postgres = stack.postgres().context("the stack has PostgreSQL")?;
    wait_for_rows(postgres, stack.audit("flash").await?.sold).await
}

async fn wait_for_rows(postgres: &Postgres, rows: u64) -> Result<()> {
    // The tables do not exist before the ledger has made them.
    let all = async || {
        number(postgres, "SELECT sum(position) FROM positions").is_ok_and(|done| done >= rows as f64)
    };
    until("all orders are in PostgreSQL", LIMIT, all).await
}

fn number(postgres: &Postgres, sql: &str) -> Result<f64> {
    Ok(postgres.sql(sql)?.parse()?)
}

fn cpu(process: &Process) -> Duration {
    procfs::cpu_time(process.pid()).unwrap_or_default()
}

/// CPU time of the server's processes that run now: one for each connection, and those of the server itself.
fn postgres_cpu(postgres: &Postgres) -> Duration {
    let first = postgres.process().pid();
    procfs::children(first).into_iter().chain([first]).filter_map(procfs::cpu_time).sum()
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
