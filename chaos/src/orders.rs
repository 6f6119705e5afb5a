//! The way of orders out of Redis: PostgreSQL, two ledgers, and a network between them that can hold statements back.

mod gate;
mod rows;
mod small_disk;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use buyers::first_findings;
use futures::future::{join_all, try_join_all};
use stock::sale::Sale;
use testkit::{
    Launch, Lifetime, Postgres, Process, Stack, ports::PortBlock, postgres::PostgresOptions, until_ok,
};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard},
    task::spawn_blocking,
    time::timeout,
};

use crate::{claims::read_claims, testbed::connect};

pub(crate) use gate::{Gate, Moment};
use rows::{OrderRow, contradictions};
pub(crate) use small_disk::SmallDisk;

/// Number of ledgers. Two compete for each shard.
const LEDGERS: u16 = 2;

/// Time limit of a ledger for a statement. Short, so that a frozen PostgreSQL is noticed while a fault lasts.
const DATABASE_TIMEOUT: &str = "2s";

/// Time limit for PostgreSQL and all ledgers to be ready after a fault. The cluster may be recovering from another one.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Time limit of a query.
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for the ledgers to write the last orders at the end.
const DRAIN_LIMIT: Duration = Duration::from_mins(2);

/// Number of findings that are listed.
const FINDINGS_LISTED_MAX: usize = 20;

/// The bearer token of the orders API, which nothing here uses.
const TOKEN: &str = "0123456789abcdef";

/// PostgreSQL and the ledgers of a run. Dropping it kills them.
pub struct Orders {
    ledgers: Vec<Ledger>,
    postgres: Arc<Postgres>,
    /// Held by the fault that is active here.
    in_use: AsyncMutex<()>,
    folder: PathBuf,
    _ports: PortBlock,
}

/// A ledger and its network.
pub(crate) struct Ledger {
    launch: Launch,
    process: Mutex<Arc<Process>>,
    url: String,
    pub(crate) gate: Gate,
}

/// Compares the rows of a sale with its claims. Returns the number of rows, and what is wrong with them. The sale must
/// be over, or sold out.
///
/// # Errors
/// Fails when Redis or PostgreSQL cannot be read.
pub async fn audit_orders(stack: &Stack, orders: &Orders, sale: &Sale) -> Result<(u64, Vec<String>)> {
    let claims = read_claims(&connect(stack.redis()).await?, sale).await?;
    let mut found: Vec<String> = orders.lag(sale, claims.len()).await.into_iter().collect();
    let rows = orders.rows_of(sale).await?;
    found.extend(first_findings(contradictions(&claims, &rows), FINDINGS_LISTED_MAX));
    Ok((rows.len() as u64, found))
}

/// Checks that a disk can be filled on this machine.
///
/// # Errors
/// Fails when a requirement is missing, and names it.
pub fn ensure_disk_can_be_full() -> Result<()> {
    SmallDisk::ensure_possible()
}

impl Orders {
    /// Starts PostgreSQL and the ledgers in the folder of the stack, and waits until they are ready.
    ///
    /// # Errors
    /// Fails when PostgreSQL is not installed, or a process does not start.
    pub async fn start(stack: &Stack, program: &Path) -> Result<Self> {
        let ports = PortBlock::take()?;
        let folder = stack.folder().subfolder("postgres")?;
        let options =
            PostgresOptions { port: ports.first(), folder: folder.clone(), lifetime: Lifetime::Attached };
        let postgres = Arc::new(Postgres::start(options).await.context("PostgreSQL")?);
        let ledgers = (1..=LEDGERS).map(|number| Ledger::start(stack, program, &postgres, &ports, number));
        let ledgers = try_join_all(ledgers).await?;
        let orders = Self { ledgers, postgres, in_use: AsyncMutex::default(), folder, _ports: ports };
        orders.wait_until_ready().await?;
        Ok(orders)
    }

    /// The PostgreSQL server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The folder of PostgreSQL.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn ledgers(&self) -> &[Ledger] {
        &self.ledgers
    }

    /// Waits until no other fault is active here.
    pub(crate) async fn take(&self) -> MutexGuard<'_, ()> {
        self.in_use.lock().await
    }

    /// Kills PostgreSQL and all ledgers.
    pub(crate) fn kill_all(&self) {
        self.ledgers.iter().for_each(|ledger| ledger.process().kill());
        self.postgres.kill();
    }

    /// Starts PostgreSQL and all ledgers after [`Self::kill_all`].
    ///
    /// # Errors
    /// Fails when a process does not start.
    pub(crate) async fn restart_all(&self) -> Result<()> {
        self.ledgers.iter().try_for_each(Ledger::spawn_again)?;
        self.postgres.restart().await
    }

    /// Waits until PostgreSQL answers and every ledger is ready.
    ///
    /// # Errors
    /// Fails when a ledger has ended, or is not ready in time.
    pub async fn wait_until_ready(&self) -> Result<()> {
        try_join_all(self.ledgers.iter().map(Ledger::wait_until_ready)).await?;
        Ok(())
    }

    /// Runs SQL. Returns the rows: a line each, with `|` between columns.
    ///
    /// # Errors
    /// Fails when PostgreSQL refuses the SQL, or does not answer in time.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        let (postgres, sql) = (self.postgres.clone(), sql.to_owned());
        timeout(QUERY_LIMIT, spawn_blocking(move || postgres.sql(&sql)))
            .await
            .context("no answer in time")??
    }

    /// The number of rows of all sales.
    pub(crate) async fn count_rows(&self) -> Result<u64> {
        Ok(self.sql("SELECT count(*) FROM order_events").await?.parse()?)
    }

    /// Reads the rows of a sale in the order of their positions.
    pub(crate) async fn rows_of(&self, sale: &Sale) -> Result<Vec<OrderRow>> {
        let rows = self.sql(&rows::query(sale.id().as_str(), sale.fingerprint().as_str())).await?;
        rows.lines().map(str::parse).collect()
    }

    /// Waits until PostgreSQL has this many orders of a sale. Returns what is wrong when it has not.
    pub(crate) async fn lag(&self, sale: &Sale, orders: usize) -> Option<String> {
        let drained = async || {
            let rows = self.rows_of(sale).await?.len();
            ensure!(rows >= orders, "{rows} of {orders} orders are in PostgreSQL");
            Ok(())
        };
        let drained = until_ok("all orders in PostgreSQL", DRAIN_LIMIT, drained).await;
        let error = drained.err()?;
        let logs = join_all(self.ledgers.iter().map(async |ledger| ledger.process().log_tail())).await;
        Some(format!("{error:#}{}", logs.concat()))
    }
}

impl Ledger {
    async fn start(
        stack: &Stack,
        program: &Path,
        postgres: &Postgres,
        ports: &PortBlock,
        number: u16,
    ) -> Result<Self> {
        let (port, gate_port) = (ports.first() + number, ports.first() + LEDGERS + number);
        let gate = Gate::open(gate_port, ports.first()).await?;
        let url = postgres.url().replace(&format!(":{}/", ports.first()), &format!(":{gate_port}/"));
        let launch = Launch::new(format!("ledger-{number}"), program, stack.folder().path())
            .env("PORT", port)
            .env("REDIS_URL", stack.redis().seeds())
            .env("DATABASE_URL", url)
            .env("DATABASE_TIMEOUT", DATABASE_TIMEOUT)
            .env("ADMIN_TOKEN", TOKEN)
            .env("LOG_FORMAT", "json");
        let process = Mutex::new(Arc::new(launch.spawn()?));
        Ok(Self { launch, process, url: format!("http://127.0.0.1:{port}"), gate })
    }

    /// The ledger's process. A restart replaces it.
    pub(crate) fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the ledger if it runs, and starts it again.
    ///
    /// # Errors
    /// Fails when the process cannot be started.
    pub(crate) fn spawn_again(&self) -> Result<()> {
        self.process().kill();
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(self.launch.spawn()?);
        Ok(())
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let readyz = format!("{}/readyz", self.url);
        let client = reqwest::Client::new();
        let ready = async || {
            let status = client.get(&readyz).send().await?.status();
            ensure!(status.is_success(), "GET {readyz} answers {status}");
            Ok(())
        };
        self.process().wait_until_ready(READY_LIMIT, ready).await
    }
}
