//! The crowd at one sale: how many may be asking at once, how fast they come, and when they stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::random_range;
use stock::{
    ids::ShardId,
    sale::{EpochMs, Sale},
};
use testkit::{Stack, stack::Node};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    behaviours::REQUESTS_PER_STORY,
    buyers::{Buyer, BuyerFactory, known},
    client::{Counts, JournalingClient, RequestOutcome},
};
use crate::journal::{Journal, JournalEntry, Micros, SaleOpened};

/// Requests that may be under way for one home shard. With 12 shards that is 72 connections if nothing answers, and a
/// handful if all is well.
const REQUESTS_PER_SHARD: usize = 6;

/// Buyers under way, those included who wait to come again: bounds memory, not load.
const STORIES_MAX: usize = 20_000;

/// The last part of the stock is left to the crowd at the end, so that no fault meets a sale that is sold out.
const RESERVE_PARTS: u64 = 10;

/// Buyers of one wave of the crowd at the end.
const WAVE: usize = 400;

/// How fast buyers come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArrivalRate {
    /// From one buyer to the next.
    pub(crate) between_buyers: Duration,
    /// Whether the last part of the stock is left to the crowd at the end.
    pub(crate) keeps_reserve: bool,
}

impl ArrivalRate {
    /// So many requests a second, all in all, at a sale that is not sold out before the end.
    pub(crate) fn of_requests(per_second: f64) -> Self {
        let between_buyers = Duration::from_secs_f64(REQUESTS_PER_STORY / per_second);
        Self { between_buyers, keeps_reserve: true }
    }

    /// New buyers in this time.
    pub(crate) fn buyers_in(self, time: Duration) -> u64 {
        (time.as_secs_f64() / self.between_buyers.as_secs_f64()) as u64
    }
}

/// The buyers of one sale, and where they buy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BuyerCrowd(Arc<CrowdState>);

#[derive(Debug)]
struct CrowdState {
    sale: SaleHandle,
    stack: Arc<Stack>,
    teller: JournalingClient,
    people: BuyerFactory,
    places: Vec<Semaphore>,
    in_doubt: AtomicI64,
    over_at: AtomicU64,
}

/// A sale has no `Debug` of its own; its id says enough.
struct SaleHandle(Sale);

impl std::fmt::Debug for SaleHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.id())
    }
}

/// What journals call the way in for everybody.
pub(crate) const NGINX: &str = "nginx";

/// Where one may ask: what it is called, and its base URL.
pub(super) type Endpoint = (String, String);

/// An attempt without a definite answer, while it lives.
pub(super) struct UnresolvedAttempt<'a>(&'a AtomicI64);

impl Drop for UnresolvedAttempt<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BuyerCrowd {
    /// Buyers of this sale, who write down what happens.
    pub fn new(sale: Sale, stack: Arc<Stack>, journal: Journal) -> Self {
        let places = sale.shards().iter().map(|_| Semaphore::new(REQUESTS_PER_SHARD)).collect();
        let teller = JournalingClient::new(sale.id().as_str(), journal);
        let (people, in_doubt) = (BuyerFactory::default(), AtomicI64::new(0));
        let (sale, over_at) = (SaleHandle(sale), AtomicU64::new(Micros::MAX));
        Self(Arc::new(CrowdState { sale, stack, teller, people, places, in_doubt, over_at }))
    }

    /// Writes down how the sale stands before the first buyer comes, and how wrong clocks of shards may be.
    ///
    /// # Errors
    /// When the journal cannot be written.
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
        self.journal().note(&JournalEntry::SaleOpened(opened)).await
    }

    /// Tells buyers when there is no point in further attempts at a sale that is not selling.
    pub(crate) fn is_over_at(&self, at: Micros) {
        self.0.over_at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.journal().now() >= self.0.over_at.load(Ordering::Relaxed)
    }

    /// The sale.
    pub fn sale(&self) -> &Sale {
        &self.0.sale.0
    }

    /// Their journal.
    pub fn journal(&self) -> &Journal {
        self.0.teller.journal()
    }

    /// What was asked and told so far.
    pub fn counts(&self) -> Counts {
        let in_doubt = u64::try_from(self.0.in_doubt.load(Ordering::Relaxed)).unwrap_or_default();
        Counts { in_doubt, ..self.0.teller.counts() }
    }

    /// Buyers come at this pace until `stop` completes; then those who came get their answers.
    pub(crate) async fn sell(
        &self,
        pace: ArrivalRate,
        stop: impl Future<Output = ()>,
        patience: Duration,
    ) -> Result<()> {
        let mut stories = JoinSet::new();
        let mut ticks = interval(pace.between_buyers);
        // A machine that was busy does not make up for it with a rush.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = ticks.tick() => self.somebody_comes(pace, &mut stories),
                Some(ended) = stories.join_next() => ended.context("a buyer's task failed")??,
            }
        }
        // Who is left without an answer then is found in the journal.
        timeout(patience, join_all(stories)).await.unwrap_or(Ok(()))
    }

    /// Buyers come, as many at once as there are places, until every unit is sold and a wave of them got none.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or the journal cannot be written.
    pub async fn sell_out(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let before = self.counts().purchases;
            let wave = (0..WAVE).map(|_| self.0.people.next(self.sale())).collect();
            self.all_come(wave, None, deadline).await?;
            if self.counts().purchases == before {
                return Ok(());
            }
        }
    }

    /// People who came before come once more and look what they have.
    pub(crate) async fn come_back(&self, count: usize, limit: Duration) -> Result<()> {
        let earlier = self.0.people.count();
        let mut stories = JoinSet::new();
        for _ in 0..count {
            let (shop, person) = (self.clone(), known(self.sale(), random_range(0..earlier.max(1))));
            stories.spawn(async move { shop.comes_back(&person).await });
        }
        timeout(limit, join_all(stories)).await.unwrap_or(Ok(()))
    }

    /// So many new buyers at home in one shard.
    pub fn neighbours(&self, home: ShardId, count: usize) -> Vec<Buyer> {
        (0..count).map(|_| self.0.people.next_at(self.sale(), home)).collect()
    }

    /// One request through nginx: a try of the attempt of this name.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn try_once(&self, person: &Buyer, attempt: &str) -> Result<RequestOutcome> {
        let ask = person.attempt(self.sale(), attempt);
        self.teller().ask(person, &ask, &self.nginx()).await
    }

    /// These people buy, each trying until the answer is definite.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or the journal cannot be written.
    pub async fn all_buy(&self, people: Vec<Buyer>, limit: Duration) -> Result<()> {
        self.all_come(people, None, Instant::now() + limit).await
    }

    /// These people buy, each first at this node.
    pub(crate) async fn all_buy_at(&self, people: Vec<Buyer>, node: &Node, limit: Duration) -> Result<()> {
        let door = (node.process().name().to_owned(), node.url().to_owned());
        self.all_come(people, Some(door), Instant::now() + limit).await
    }

    pub(crate) fn teller(&self) -> &JournalingClient {
        &self.0.teller
    }

    /// The way in for everybody.
    pub(super) fn nginx(&self) -> Endpoint {
        (NGINX.into(), self.0.stack.url())
    }

    /// The door of the node of this number, modulo as many as there are.
    pub(super) fn node(&self, number: u64) -> Option<Endpoint> {
        let nodes = self.0.stack.nodes();
        let node = nodes.get(number as usize % nodes.len().max(1))?;
        Some((node.process().name().to_owned(), node.url().to_owned()))
    }

    pub(super) fn doubt(&self) -> UnresolvedAttempt<'_> {
        self.0.in_doubt.fetch_add(1, Ordering::Relaxed);
        UnresolvedAttempt(&self.0.in_doubt)
    }

    pub(super) async fn place_at(&self, home: ShardId) -> SemaphorePermit<'_> {
        self.0.places[home.index()].acquire().await.expect("nobody closes the shop")
    }

    /// Somebody new; where a reserve is kept, somebody who came before near the end of the stock.
    fn somebody_comes(&self, pace: ArrivalRate, stories: &mut JoinSet<Result<()>>) {
        if stories.len() >= STORIES_MAX {
            return;
        }
        let (shop, total) = (self.clone(), self.sale().config.total_stock);
        let earlier = self.0.people.count();
        if !pace.keeps_reserve || earlier < total - total / RESERVE_PARTS {
            let person = self.0.people.next(self.sale());
            stories.spawn(async move { shop.story(&person).await });
        } else {
            let person = known(self.sale(), random_range(0..earlier.max(1)));
            stories.spawn(async move { shop.comes_back(&person).await });
        }
    }

    async fn all_come(&self, people: Vec<Buyer>, door: Option<Endpoint>, deadline: Instant) -> Result<()> {
        let mut stories = JoinSet::new();
        for person in people {
            let (shop, door) = (self.clone(), door.clone());
            stories.spawn(async move { shop.buys(&person, "first", door).await });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let all = timeout(left, join_all(stories)).await;
        ensure!(all.is_ok(), "the sale is not sold out in time: {:?}", self.counts());
        all?
    }
}

async fn join_all(mut stories: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = stories.join_next().await {
        ended.context("a buyer's task failed")??;
    }
    Ok(())
}
