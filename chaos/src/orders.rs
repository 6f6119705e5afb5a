//! The way of orders out of Redis: PostgreSQL, two ledgers, a network between them that can hold statements back, RabbitMQ,
//! and a shop that gets the orders.

mod gate;
mod rows;
mod shop;
mod small_disk;

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use buyers::first_findings;
use futures::future::try_join_all;
use stock::sale::Sale;
use testkit::{
    Lifetime, Postgres, RabbitMq, Stack, ports::PortBlock, rabbitmq::RabbitMqOptions, stack::Ledger, until_ok,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{claims::read_claims, testbed::connect};

pub(crate) use gate::{Gate, Moment};
use rows::{OrderRow, contradictions};
pub(crate) use shop::Endpoint;
use shop::{QUEUE, Shop, ensure_complete};
pub(crate) use small_disk::SmallDisk;

/// Number of ledgers. Two compete for each shard.
const LEDGERS: u16 = 2;

/// Time limit of a ledger for a statement, and for a delivery. Short, so that a frozen server is noticed while a fault lasts.
const LIMIT: &str = "2s";

/// Signs deliveries to the webhook. The endpoint does not check it.
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// Time limit for PostgreSQL and all ledgers to be ready after a fault. The cluster may be recovering from another one.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Time limit of one look at a ledger's readiness.
const READY_ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Time limit of a query.
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// Time between two looks at what is complete, which read whole tables.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Number of findings that are listed.
const FINDINGS_LISTED_MAX: usize = 20;

/// PostgreSQL, the ledgers, RabbitMQ and the shop of a run.
pub struct OrderTestbed {
    shop: Shop,
    broker: RabbitMq,
    stack: Arc<Stack>,
    /// The network of each ledger.
    gates: Vec<Gate>,
    /// Held by the fault that is active here.
    in_use: Mutex<()>,
    _ports: PortBlock,
}

/// Compares the rows of a sale with its claims, within `limit` for the ledgers to write the last ones. Returns the number of
/// rows, and what is wrong with them. The sale must be over, or sold out.
///
/// # Errors
/// Fails when Redis or PostgreSQL cannot be read.
pub async fn audit_orders(orders: &OrderTestbed, sale: &Sale, limit: Duration) -> Result<(u64, Vec<String>)> {
    let claims = read_claims(&connect(orders.stack.redis()).await?, sale).await?;
    let mut found: Vec<String> = orders.lag(sale, claims.len(), limit).await.into_iter().collect();
    let rows = orders.rows_of(sale).await?;
    found.extend(first_findings(contradictions(&claims, &rows), FINDINGS_LISTED_MAX));
    Ok((rows.len() as u64, found))
}

/// Compares what the shop got, and what it did, with the rows of all sales, within `limit` for the last deliveries. Returns the
/// number of parcels, and what is wrong.
///
/// # Errors
/// Fails when PostgreSQL cannot be read.
pub async fn audit_feed(orders: &OrderTestbed, limit: Duration) -> Result<(u64, Vec<String>)> {
    let rows = orders.sql("SELECT id FROM order_events").await?;
    let rows: HashSet<&str> = rows.lines().collect();
    let read = "SELECT sink, event FROM shop.parcels";
    let complete = async || {
        sleep(LOOK_PERIOD).await;
        ensure_complete(orders.sql(read).await?.lines().count(), rows.len())
    };
    let complete = until_ok("all parcels", limit, complete).await;
    let parcels = orders.sql(read).await?;
    let parcels: Vec<_> = parcels.lines().filter_map(|line| line.split_once('|')).collect();
    let found = shop::contradictions(&rows, &orders.shop.arrivals(), &parcels);
    let mut found = first_findings(found, FINDINGS_LISTED_MAX);
    found.extend(complete.err().map(|error| format!("feed: {error:#}{}", orders.ledger_logs())));
    Ok((parcels.len() as u64, found))
}

/// Checks that a disk can be filled on this machine.
///
/// # Errors
/// Fails when a requirement is missing, and names it.
pub fn ensure_disk_can_be_full() -> Result<()> {
    SmallDisk::ensure_possible()
}

impl OrderTestbed {
    /// Starts PostgreSQL, RabbitMQ, the shop and the ledgers, and waits until the ledgers are ready.
    ///
    /// # Errors
    /// Fails when PostgreSQL or RabbitMQ is not installed, or a process does not start.
    pub async fn start(stack: Arc<Stack>) -> Result<Self> {
        let ports = PortBlock::take()?;
        let broker = RabbitMqOptions {
            port: ports.first(),
            folder: stack.folder().subfolder("rabbitmq")?,
            lifetime: Lifetime::Attached,
        };
        let starting = async { RabbitMq::start(broker).await.context("RabbitMQ") };
        let (postgres, broker) = tokio::try_join!(stack.start_postgres(), starting)?;
        let url = postgres.url();
        let shop = Shop::open(&url, &broker).await?;
        let server_port = stack.ports().postgres();
        let mut gates = Vec::new();
        for _ in 0..LEDGERS {
            let gate = Gate::open(server_port).await?;
            let url = url.replace(&format!(":{server_port}/"), &format!(":{}/", gate.port()));
            let environment = [
                ("DATABASE_URL", url),
                ("DATABASE_TIMEOUT", LIMIT.to_owned()),
                ("AMQP_URL", broker.url()),
                ("AMQP_QUEUE", QUEUE.to_owned()),
                ("WEBHOOK_URL", shop.webhook_url()),
                ("WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
                ("FEED_TIMEOUT", LIMIT.to_owned()),
            ];
            stack
                .start_ledger_with(&environment.map(|(variable, value)| (variable.to_owned(), value)))
                .await?;
            gates.push(gate);
        }
        Ok(Self { shop, broker, stack, gates, in_use: Mutex::default(), _ports: ports })
    }

    /// The PostgreSQL server.
    pub fn postgres(&self) -> &Arc<Postgres> {
        self.stack.postgres().expect("it was started with the ledgers")
    }

    /// The message broker.
    pub(crate) fn broker(&self) -> &RabbitMq {
        &self.broker
    }

    pub(crate) fn shop(&self) -> &Shop {
        &self.shop
    }

    /// Lets the shop confirm the next event without acting on it, as a wrong consumer would.
    pub fn swallow_next_event(&self) {
        self.shop.swallow_next_event();
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
        let rows = self.sql(&rows::query(sale.id().as_str(), &sale.creation())).await?;
        rows.lines().map(str::parse).collect()
    }

    /// Waits until PostgreSQL has this many orders of a sale. Returns what is wrong when it has not.
    async fn lag(&self, sale: &Sale, orders: usize, limit: Duration) -> Option<String> {
        let drained = async || {
            sleep(LOOK_PERIOD).await;
            let rows = self.rows_of(sale).await?.len();
            ensure!(rows >= orders, "{rows} of {orders} orders are in PostgreSQL");
            Ok(())
        };
        let error = until_ok("all orders in PostgreSQL", limit, drained).await.err()?;
        Some(format!("ledger: {error:#}{}", self.ledger_logs()))
    }

    fn ledger_logs(&self) -> String {
        self.stack.ledgers().iter().map(|ledger| ledger.process().log_tail()).collect()
    }
}
