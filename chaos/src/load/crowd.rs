//! The buyers of one sale: limits their requests in flight, sets their arrival rate, and ends their attempts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use buyers::{
    AnswerKind,
    journal::{Journal, JournalEntry, Micros, SaleOpened},
};
use rand::random_range;
use rediscluster::EpochMs;
use stock::{ids::ShardId, sale::Sale};
use testkit::{Stack, stack::Node};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    behaviours::REQUESTS_PER_BUYER,
    buyers::{Buyer, make_buyer, numbered_buyer},
    client::{Counts, JournalingClient},
};

/// Requests in flight for one home shard. With 12 shards that is 72 connections if no shard answers, and a handful in
/// normal operation.
const REQUESTS_PER_SHARD: usize = 6;

/// Number of active buyers, including those that pause between requests. Bounds memory, not load.
const BUYERS_MAX: usize = 20_000;

/// The stock's last tenth is kept for the crowd at the end, so that the sale is not sold out before the last fault.
const RESERVE_PARTS: u64 = 10;

/// Number of buyers in one wave of the crowd at the end.
const WAVE: usize = 400;

/// Rate at which buyers arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArrivalRate {
    /// Time between two buyers.
    pub(crate) between_buyers: Duration,
    /// Keeps the last part of the stock for the crowd at the end.
    pub(crate) keeps_reserve: bool,
}

impl ArrivalRate {
    /// Rate with `per_second` requests in total, at a sale that is not sold out before the end.
    pub(crate) fn of_requests(per_second: f64) -> Self {
        let between_buyers = Duration::from_secs_f64(REQUESTS_PER_BUYER / per_second);
        Self { between_buyers, keeps_reserve: true }
    }

    /// Number of new buyers in this time.
    pub(crate) fn buyers_in(self, time: Duration) -> u64 {
        (time.as_secs_f64() / self.between_buyers.as_secs_f64()) as u64
    }
}

/// The buyers of one sale and their endpoints. Cheap to clone.
#[derive(Clone)]
pub struct BuyerCrowd(Arc<CrowdState>);

struct CrowdState {
    sale: Sale,
    stack: Arc<Stack>,
    client: JournalingClient,
    /// Number of buyers created so far.
    buyers: AtomicU64,
    permits: Vec<Semaphore>,
    stop_at: AtomicU64,
}

/// Name of the load balancer in the journal.
pub(crate) const NGINX: &str = "nginx";

/// Name and base URL of a server that answers buyers.
pub(super) type Endpoint = (String, String);

impl BuyerCrowd {
    /// Creates the buyers of this sale, with their journal.
    pub fn new(sale: Sale, stack: Arc<Stack>, journal: Journal) -> Self {
        let permits = sale.shards().iter().map(|_| Semaphore::new(REQUESTS_PER_SHARD)).collect();
        let client = JournalingClient::new(sale.id().as_str(), journal);
        let (buyers, stop_at) = (AtomicU64::new(0), AtomicU64::new(Micros::MAX));
        Self(Arc::new(CrowdState { sale, stack, client, buyers, permits, stop_at }))
    }

    /// Writes the sale's settings, and the largest error of a shard's clock, to the journal. Must be called before the
    /// first buyer.
    ///
    /// # Errors
    /// Fails when the journal cannot be written.
    pub async fn open(&self, clock_error: Duration) -> Result<()> {
        let config = &self.sale().config;
        let opened = SaleOpened {
            at: self.journal().now(),
            sale: config.id.to_string(),
            total_stock: config.total_stock,
            starts_at: config.window.starts_at,
            ends_at: config.window.ends_at,
            clock_error_ms: clock_error.as_millis() as EpochMs,
        };
        self.journal().append(&JournalEntry::SaleOpened(opened)).await
    }

    /// Sets the time after which buyers start no further attempts while the sale is not selling.
    pub(crate) fn stop_at(&self, at: Micros) {
        self.0.stop_at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.journal().now() >= self.0.stop_at.load(Ordering::Relaxed)
    }

    /// The sale.
    pub fn sale(&self) -> &Sale {
        &self.0.sale
    }

    /// The buyers' journal.
    pub fn journal(&self) -> &Journal {
        self.0.client.journal()
    }

    /// Counts of requests and answers so far.
    pub fn counts(&self) -> Counts {
        *self.client().counts()
    }

    /// Lets buyers arrive at this rate until `stop` completes, then waits up to `settle_limit` for their answers.
    pub(crate) async fn run_buyers(
        &self,
        rate: ArrivalRate,
        stop: impl Future<Output = ()>,
        settle_limit: Duration,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        let mut ticks = interval(rate.between_buyers);
        // After a delay, buyers arrive at the same rate again, without a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = ticks.tick() => self.spawn_buyer(rate, &mut tasks),
                Some(ended) = tasks.join_next() => ended.context("a buyer's task failed")??,
            }
        }
        // Attempts without an answer by then are found in the journal.
        timeout(settle_limit, join_all(tasks)).await.unwrap_or(Ok(()))
    }

    /// Lets waves of buyers buy until a wave gets no unit.
    ///
    /// # Errors
    /// Fails when that takes longer than `limit`, or when the journal cannot be written.
    pub async fn sell_out(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let before = self.counts().purchases;
            let wave = (0..WAVE).map(|_| self.new_buyer()).collect();
            self.buy_all(wave, None, deadline.saturating_duration_since(Instant::now())).await?;
            if self.counts().purchases == before {
                return Ok(());
            }
        }
    }

    /// Lets `count` earlier buyers buy once more and look their purchase up.
    pub(crate) async fn return_visits(&self, count: usize, limit: Duration) -> Result<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (crowd, buyer) = (self.clone(), self.earlier_buyer());
            tasks.spawn(async move { crowd.return_visit(&buyer).await });
        }
        timeout(limit, join_all(tasks)).await.unwrap_or(Ok(()))
    }

    /// Creates `count` buyers with this home shard.
    pub fn new_buyers_at(&self, home: ShardId, count: usize) -> Vec<Buyer> {
        (0..count).map(|_| make_buyer(self.sale(), self.next_number(), Some(home))).collect()
    }

    /// Sends one request of the attempt with this name, to this node or through nginx.
    ///
    /// # Errors
    /// Fails when the journal cannot be written.
    pub async fn try_once(&self, buyer: &Buyer, attempt: &str, node: Option<&Node>) -> Result<AnswerKind> {
        let (ask, endpoint) = (buyer.purchase(self.sale(), attempt), node.map(endpoint_of));
        let endpoint = endpoint.unwrap_or_else(|| self.nginx());
        Ok(self.client().ask(buyer, &ask, &endpoint).await?.kind)
    }

    /// Lets these buyers buy. Each retries until the answer is definite. The first requests go to this node, if any, and
    /// all others through nginx.
    ///
    /// # Errors
    /// Fails when that takes longer than `limit`, or when the journal cannot be written.
    pub async fn buy_all(&self, buyers: Vec<Buyer>, node: Option<&Node>, limit: Duration) -> Result<()> {
        let mut tasks = JoinSet::new();
        for buyer in buyers {
            let (crowd, endpoint) = (self.clone(), node.map(endpoint_of));
            tasks.spawn(async move { crowd.buy(&buyer, "first", endpoint).await });
        }
        let all = timeout(limit, join_all(tasks)).await;
        ensure!(all.is_ok(), "the sale is not sold out in time: {:?}", self.counts());
        all?
    }

    pub(crate) fn client(&self) -> &JournalingClient {
        &self.0.client
    }

    /// The load balancer's endpoint.
    pub(super) fn nginx(&self) -> Endpoint {
        (NGINX.into(), self.0.stack.url())
    }

    /// The endpoint of the node with this number, modulo the number of nodes.
    pub(super) fn node(&self, number: u64) -> Option<Endpoint> {
        let nodes = self.0.stack.nodes();
        nodes.get(number as usize % nodes.len().max(1)).map(|node| endpoint_of(node))
    }

    pub(super) async fn permit(&self, home: ShardId) -> SemaphorePermit<'_> {
        self.0.permits[home.index()].acquire().await.expect("the semaphores are never closed")
    }

    /// Starts a new buyer. When only the reserve is left, starts an earlier buyer instead.
    fn spawn_buyer(&self, rate: ArrivalRate, tasks: &mut JoinSet<Result<()>>) {
        if tasks.len() >= BUYERS_MAX {
            return;
        }
        let (crowd, total) = (self.clone(), self.sale().config.total_stock);
        if !rate.keeps_reserve || self.buyers_count() < total - total / RESERVE_PARTS {
            let buyer = self.new_buyer();
            tasks.spawn(async move { crowd.run_behaviour(&buyer).await });
        } else {
            let buyer = self.earlier_buyer();
            tasks.spawn(async move { crowd.return_visit(&buyer).await });
        }
    }

    fn next_number(&self) -> u64 {
        self.0.buyers.fetch_add(1, Ordering::Relaxed)
    }

    fn buyers_count(&self) -> u64 {
        self.0.buyers.load(Ordering::Relaxed)
    }

    fn new_buyer(&self) -> Buyer {
        numbered_buyer(self.sale(), self.next_number())
    }

    fn earlier_buyer(&self) -> Buyer {
        numbered_buyer(self.sale(), random_range(0..self.buyers_count().max(1)))
    }
}

fn endpoint_of(node: &Node) -> Endpoint {
    (node.process().name().to_owned(), node.url().to_owned())
}

async fn join_all(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a buyer's task failed")??;
    }
    Ok(())
}
