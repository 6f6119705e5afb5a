//! The way of orders out of Redis: PostgreSQL, two ledgers, and a network between them that can hold statements back.

mod gate;
mod rows;
mod small_disk;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use buyers::first_findings;
use futures::future::try_join_all;
use stock::sale::Sale;
use testkit::{Postgres, Stack, stack::Ledger, until_ok};
use tokio::{
    sync::{Mutex, MutexGuard},
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

/// Time limit of one look at a ledger's readiness.
const READY_ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Time limit of a query.
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for the ledgers to write the last orders at the end.
const DRAIN_LIMIT: Duration = Duration::from_mins(2);

/// Number of findings that are listed.
const FINDINGS_LISTED_MAX: usize = 20;

/// PostgreSQL and the ledgers of a run.
pub struct Orders {
    stack: Arc<Stack>,
    /// The network of each ledger.
    gates: Vec<Gate>,
    /// Held by the fault that is active here.
    in_use: Mutex<()>,
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
    /// Starts PostgreSQL and the ledgers, and waits until they are ready.
    ///
    /// # Errors
    /// Fails when PostgreSQL is not installed, or a process does not start.
    pub async fn start(stack: Arc<Stack>) -> Result<Self> {
        let url = stack.start_postgres().await.context("PostgreSQL")?.url();
        let server_port = stack.ports().postgres();
        let mut gates = Vec::new();
        for _ in 0..LEDGERS {
            let gate = Gate::open(server_port).await?;
            let url = url.replace(&format!(":{server_port}/"), &format!(":{}/", gate.port()));
            let environment = [("DATABASE_URL", url.as_str()), ("DATABASE_TIMEOUT", DATABASE_TIMEOUT)]
                .map(|(variable, value)| (variable.to_owned(), value.to_owned()));
            stack.start_ledger_with(&environment).await?;
            gates.push(gate);
        }
        Ok(Self { stack, gates, in_use: Mutex::default() })
    }

    /// The PostgreSQL server.
    pub fn postgres(&self) -> &Arc<Postgres> {
        self.stack.postgres().expect("it was started with the ledgers")
    }

    /// Returns the ledger that `draw` selects, and its network.
    pub(crate) fn pick_ledger(&self, draw: u32) -> (Arc<Ledger>, &Gate) {
        let number = draw as usize % self.gates.len();
        (self.stack.ledgers()[number].clone(), &self.gates[number])
    }

    /// Waits until no other fault is active here.
    pub(crate) async fn take(&self) -> MutexGuard<'_, ()> {
        self.in_use.lock().await
    }

    /// Waits until every ledger is ready, which is connected to Redis and PostgreSQL.
    ///
    /// # Errors
    /// Fails when a ledger has ended, or is not ready in time.
    pub(crate) async fn wait_until_ready(&self) -> Result<()> {
        let client = reqwest::Client::new();
        try_join_all(self.stack.ledgers().iter().map(async |ledger| {
            let ready = async || {
                let request = client.get(format!("{}/readyz", ledger.url())).timeout(READY_ANSWER_LIMIT);
                let status = request.send().await?.status();
                ensure!(status.is_success(), "{} answers {status}", ledger.url());
                Ok(())
            };
            ledger.process().wait_until_ready(READY_LIMIT, ready).await
        }))
        .await?;
        Ok(())
    }

    /// Runs SQL. Returns the rows: a line each, with `|` between columns.
    ///
    /// # Errors
    /// Fails when PostgreSQL refuses the SQL, or does not answer in time.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        let (postgres, sql) = (self.postgres().clone(), sql.to_owned());
        timeout(QUERY_LIMIT, spawn_blocking(move || postgres.sql(&sql)))
            .await
            .context("no answer in time")??
    }

    /// The number of rows of all sales.
    pub(crate) async fn count_rows(&self) -> Result<u64> {
        Ok(self.sql("SELECT count(*) FROM order_events").await?.parse()?)
    }

    /// Reads the rows of a sale in the order of their positions.
    async fn rows_of(&self, sale: &Sale) -> Result<Vec<OrderRow>> {
        let rows = self.sql(&rows::query(sale.id().as_str(), sale.fingerprint().as_str())).await?;
        rows.lines().map(str::parse).collect()
    }

    /// Waits until PostgreSQL has this many orders of a sale. Returns what is wrong when it has not.
    async fn lag(&self, sale: &Sale, orders: usize) -> Option<String> {
        let drained = async || {
            let rows = self.rows_of(sale).await?.len();
            ensure!(rows >= orders, "{rows} of {orders} orders are in PostgreSQL");
            Ok(())
        };
        let error = until_ok("all orders in PostgreSQL", DRAIN_LIMIT, drained).await.err()?;
        let logs = self.stack.ledgers().iter().map(|ledger| ledger.process().log_tail()).collect::<String>();
        Some(format!("ledger: {error:#}{logs}"))
    }
}
