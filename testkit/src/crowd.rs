//! Simulated buyers: they send purchases over real connections and read the answers as a client does.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use buyers::{ANSWER_LIMIT, Answer, ApiFamily, BuyerClient, PurchaseRequest, wait_to_retry};
use futures::{StreamExt, stream};
use rand::random;
use reqwest::StatusCode;

/// Pause between two rounds of [`Buyers::buy_during`]. It leaves CPU time for the event under test.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// One user's attempt to buy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurchaseAttempt {
    /// The id of the user.
    pub user: String,
    /// The base URL of the request: `http://…` of nginx or of one node.
    pub base_url: String,
}

/// The answer to a purchase attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyerAnswer {
    /// The id of the user.
    pub user: String,
    /// The base URL of the request.
    pub base_url: String,
    /// The status of the last answer, or `None` when no answer came.
    pub status: Option<u16>,
    /// The reason in the answer (`already_purchased`, `out_of_stock`, …), or the network error when no answer came.
    pub reason: Option<String>,
    /// The order id, if the answer contains one.
    pub order_id: Option<String>,
    /// The time of that order, if the answer contains it.
    pub purchased_at: Option<String>,
    /// Time from the start of the first try to the last byte of the last answer.
    pub latency: Duration,
    /// Number of tries.
    pub tries: u32,
}

impl BuyerAnswer {
    /// Returns true when this attempt bought a unit.
    pub fn is_purchased(&self) -> bool {
        self.status == Some(200)
    }

    /// Returns true when the outcome is final: not a 429, not a 5xx and not a lost answer.
    pub fn is_definite(&self) -> bool {
        self.status.is_some_and(|status| status != StatusCode::TOO_MANY_REQUESTS && status < 500)
    }
}

/// A group of buyers that shares a bounded number of connections.
#[derive(Clone, Debug)]
pub struct Buyers {
    client: BuyerClient,
    connections: usize,
}

impl Buyers {
    /// Creates buyers of the default sale. At most `connections` requests are in flight, each on a connection of its
    /// own.
    pub fn new(connections: usize) -> Self {
        Self { client: BuyerClient::new(None, ANSWER_LIMIT), connections }
    }

    /// Returns the same buyers for another sale.
    #[must_use]
    pub fn of_sale(self, sale: &str) -> Self {
        Self { client: BuyerClient::new(Some(sale), ANSWER_LIMIT), ..self }
    }

    /// Sends each purchase once. The results are in order of arrival.
    pub async fn buy(&self, purchases: Vec<PurchaseAttempt>) -> Vec<BuyerAnswer> {
        self.run_concurrently(purchases, |purchase| self.buy_once(purchase)).await
    }

    /// Sends each purchase until its outcome is definite or `limit` has passed. All tries of one purchase carry the
    /// same `Idempotency-Key` and honour `Retry-After`.
    pub async fn buy_persistently(
        &self,
        purchases: Vec<PurchaseAttempt>,
        limit: Duration,
    ) -> Vec<BuyerAnswer> {
        let deadline = Instant::now() + limit;
        self.run_concurrently(purchases, |purchase| self.buy_until_definite(purchase, deadline)).await
    }

    /// Sends purchases of new users until `event` completes, each user once, as many at a time as there are
    /// connections.
    pub async fn buy_during<T>(
        &self,
        base_url: &str,
        event: impl Future<Output = T>,
    ) -> (T, Vec<BuyerAnswer>) {
        let (crowd, finished) = (random::<u32>(), AtomicBool::new(false));
        let event = async {
            let outcome = event.await;
            finished.store(true, Ordering::Relaxed);
            outcome
        };
        let buying = async {
            let mut answers = Vec::new();
            while !finished.load(Ordering::Relaxed) {
                let numbers = answers.len()..answers.len() + self.connections;
                let users = numbers.map(|n| format!("passer-by-{crowd:08x}-{n}"));
                let attempts = users.map(|user| PurchaseAttempt { user, base_url: base_url.to_owned() });
                answers.extend(self.buy(attempts.collect()).await);
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            answers
        };
        tokio::join!(event, buying)
    }

    async fn run_concurrently<Buying>(
        &self,
        purchases: Vec<PurchaseAttempt>,
        buy: impl Fn(PurchaseAttempt) -> Buying,
    ) -> Vec<BuyerAnswer>
    where
        Buying: Future<Output = BuyerAnswer>,
    {
        stream::iter(purchases).map(buy).buffer_unordered(self.connections).collect().await
    }

    async fn buy_once(&self, purchase: PurchaseAttempt) -> BuyerAnswer {
        self.try_once(&purchase, None).await.0
    }

    async fn buy_until_definite(&self, purchase: PurchaseAttempt, deadline: Instant) -> BuyerAnswer {
        let (key, began) = (format!("{:032x}", random::<u128>()), Instant::now());
        let mut tries = 1;
        loop {
            let (answer, retry_after) = self.try_once(&purchase, Some(&key)).await;
            if answer.is_definite() || !wait_to_retry(retry_after, deadline).await {
                return BuyerAnswer { latency: began.elapsed(), tries, ..answer };
            }
            tries += 1;
        }
    }

    /// Sends one request. Returns the answer and its `Retry-After`.
    async fn try_once(
        &self,
        attempt: &PurchaseAttempt,
        key: Option<&str>,
    ) -> (BuyerAnswer, Option<Duration>) {
        let (began, PurchaseAttempt { user, base_url }) = (Instant::now(), attempt.clone());
        let purchase = PurchaseRequest { user: &user, family: ApiFamily::BySale, key, token: None };
        let Answer { status, reason, order, purchased_at, retry_after, .. } =
            self.client.buy(&base_url, purchase).await;
        let (latency, tries) = (began.elapsed(), 1);
        let answer =
            BuyerAnswer { user, base_url, status, reason, order_id: order, purchased_at, latency, tries };
        (answer, retry_after)
    }
}
