//! Fixtures: a sale with buyers, PostgreSQL, and ledgers.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use buyers::AnswerKind;
use redis::IntoConnectionInfo as _;
use rediscluster::{Cluster, ConnectOptions};
use reqwest::{Client, StatusCode};
use stock::functions::LIBRARY;
use testkit::ports::PortBlock;
use testkit::postgres::PostgresOptions;
use testkit::stack::{PortPlan, SaleOptions};
use testkit::{
    Buyers, Folder, Launch, Lifetime, Postgres, Process, PurchaseAttempt, Stack, StackOptions, until,
};
use tokio::sync::{Mutex, MutexGuard};

/// Time limit for any expected change, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Token of an operator who may erase.
pub(crate) const TOKEN: &str = "0123456789abcdef";
/// Token of an operator who may read.
pub(crate) const READ_TOKEN: &str = "fedcba9876543210";

/// Connects to a cluster.
pub(crate) async fn cluster(seeds: &str) -> Cluster {
    let seeds = seeds.split(',').map(|seed| seed.into_connection_info().unwrap()).collect();
    Cluster::connect(ConnectOptions::new(seeds), &LIBRARY).await.unwrap()
}

/// Allows one shop at a time: two would share the machine's two cores and cause timeouts in each other.
static SHOP_LOCK: Mutex<()> = Mutex::const_new(());

/// PostgreSQL with a folder of its own.
pub(crate) struct Database {
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) folder: Folder,
    ports: Ports,
}

/// The ports of ledgers.
enum Ports {
    Own(PortBlock),
    OfStack(PortPlan),
}

impl Database {
    pub(crate) async fn start() -> Self {
        let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
        let options = PostgresOptions {
            port: ports.first(),
            folder: folder.subfolder("postgres").unwrap(),
            lifetime: Lifetime::Attached,
        };
        let postgres = Arc::new(Postgres::start(options).await.unwrap());
        Self { postgres, folder, ports: Ports::Own(ports) }
    }

    /// The database of a stack.
    async fn of(stack: &Stack) -> Self {
        let postgres = stack.start_postgres().await.unwrap().clone();
        Self { postgres, folder: Folder::temporary().unwrap(), ports: Ports::OfStack(stack.ports()) }
    }

    /// Launches a ledger. Each number has a port of its own.
    pub(crate) fn ledger(&self, number: u16, redis_url: &str) -> Launch {
        let program = env!("CARGO_BIN_EXE_flashsale-ledger");
        Launch::new(format!("ledger-{number}"), program, self.folder.path())
            .env("PORT", self.port(number))
            .env("REDIS_URL", redis_url)
            .env("DATABASE_URL", self.postgres.url())
            .envs(environment())
    }

    /// The URL of a ledger.
    pub(crate) fn ledger_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.port(number))
    }

    fn port(&self, number: u16) -> u16 {
        match &self.ports {
            Ports::Own(block) => block.first() + number,
            Ports::OfStack(plan) => plan.ledger(number - 1),
        }
    }

    /// Requests a path of a ledger.
    pub(crate) async fn get(&self, number: u16, path: &str) -> Option<(StatusCode, String)> {
        let url = self.ledger_url(number) + path;
        let response = Client::new().get(url).send().await.ok()?;
        Some((response.status(), response.text().await.ok()?))
    }

    /// Waits until a path of a ledger has this status.
    pub(crate) async fn wait_for(&self, number: u16, path: &str, status: StatusCode) {
        let has = async || self.get(number, path).await.is_some_and(|(answered, _)| answered == status);
        until(&format!("{path} of ledger {number} answers {status}"), SOON, has).await.unwrap();
    }

    /// Returns the value of a metric of a ledger.
    pub(crate) async fn metric(&self, number: u16, series: &str) -> Option<f64> {
        let (_, text) = self.get(number, "/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    pub(crate) fn count(&self, rows: &str) -> usize {
        self.postgres.sql(&format!("SELECT count(*) FROM {rows}")).unwrap().parse().unwrap()
    }

    pub(crate) async fn wait_for_orders(&self, count: usize) {
        let there = async || self.count("order_events") >= count;
        until(&format!("{count} orders in PostgreSQL"), SOON, there).await.unwrap();
    }
}

/// Settings of every ledger.
fn environment() -> Vec<(String, String)> {
    let settings = [
        ("ADMIN_TOKEN", format!("shop:operate:{TOKEN}\nreports:read:{READ_TOKEN}")),
        ("DATABASE_TIMEOUT", "2s".into()),
        ("DRAIN_PERIOD", "50ms".into()),
    ];
    settings.map(|(variable, value)| (variable.into(), value)).into()
}

/// An open sale, PostgreSQL, and the ledgers that drain the one into the other.
pub(crate) struct Shop {
    pub(crate) stack: Stack,
    pub(crate) database: Database,
    _lock: MutexGuard<'static, ()>,
}

impl Shop {
    pub(crate) async fn open(units: u64) -> Self {
        Self::open_with(units, StackOptions::default()).await
    }

    /// A shop whose Redis servers require logins.
    pub(crate) async fn open_secured(units: u64) -> Self {
        Self::open_with(units, StackOptions { secured: true, ..StackOptions::default() }).await
    }

    async fn open_with(units: u64, options: StackOptions) -> Self {
        let lock = SHOP_LOCK.lock().await;
        let sale = SaleOptions { total_stock: units, shards: Some(6), ..SaleOptions::default() };
        let options = StackOptions { nodes: 1, sale, ledger_environment: environment(), ..options };
        let stack = Stack::start(options, |_| ()).await.unwrap();
        let database = Database::of(&stack).await;
        Self { stack, database, _lock: lock }
    }

    /// Starts a ledger, and waits until it drains.
    pub(crate) async fn start_ledger(&self) {
        self.stack.start_ledger().await.unwrap();
    }

    /// A ledger's process, by its number from 1.
    /// Connects to the stack's cluster.
    pub(crate) async fn cluster(&self) -> Cluster {
        cluster(&self.stack.redis().seeds()).await
    }

    pub(crate) fn ledger(&self, number: u16) -> Arc<Process> {
        self.stack.ledgers()[usize::from(number) - 1].process()
    }

    pub(crate) fn log(&self, number: u16) -> String {
        fs::read_to_string(self.ledger(number).log()).unwrap()
    }

    /// Lets these users buy. Returns the orders that were acknowledged.
    pub(crate) async fn buy(&self, users: std::ops::Range<usize>) -> BTreeSet<String> {
        let attempts =
            users.map(|n| PurchaseAttempt { user: format!("buyer-{n:05}"), base_url: self.stack.url() });
        let answers = Buyers::new(16).buy_persistently(attempts.collect(), SOON).await;
        let bought = answers.into_iter().filter(|answer| answer.answer.kind == AnswerKind::Purchased);
        bought.map(|answer| answer.answer.order.unwrap()).collect()
    }

    /// Asserts that the ledger has exactly these orders, each once.
    pub(crate) fn assert_orders(&self, expected: &BTreeSet<String>) {
        let rows = self.database.postgres.sql("SELECT aggregateid FROM order_events").unwrap();
        let rows: Vec<&str> = rows.lines().collect();
        assert_eq!(rows.len(), expected.len(), "rows and acknowledged orders");
        assert_eq!(rows.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), *expected);
        assert_eq!(
            self.database.count("(SELECT DISTINCT user_id FROM order_events) AS users"),
            expected.len()
        );
        let positions =
            self.database.postgres.sql("SELECT min(position), max(position) FROM order_events").unwrap();
        assert_eq!(positions, format!("1|{}", expected.len()), "positions without gaps");
        let cursors = self.database.postgres.sql("SELECT sum(orders) FROM cursors").unwrap();
        assert_eq!(cursors, expected.len().to_string(), "orders up to the cursors");
    }
}
