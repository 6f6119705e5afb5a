//! Simulated buyers: they send purchases over real connections and read the answers as a client does.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use buyers::{ANSWER_LIMIT, Answer, AnswerKind, BuyerClient, PurchaseRequest, wait_to_retry};
use futures::{StreamExt, stream};
use rand::random;

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

/// The last answer to a purchase attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyerAnswer {
    /// The id of the user.
    pub user: String,
    /// The base URL of the request.
    pub base_url: String,
    /// The answer.
    pub answer: Answer,
    /// Time from the start of the first try to the last byte of the last answer.
    pub latency: Duration,
    /// Number of tries.
    pub tries: u32,
}

impl Deref for BuyerAnswer {
    type Target = Answer;

    fn deref(&self) -> &Answer {
        &self.answer
    }
}

impl BuyerAnswer {
    /// Returns true when this attempt bought a unit.
    pub fn is_purchased(&self) -> bool {
        self.kind == AnswerKind::Purchased
    }

    /// Returns true when a retry would not change the outcome.
    pub fn is_definite(&self) -> bool {
        self.kind.is_definite()
    }
}

/// Counts the answers by meaning, for messages.
pub fn tally(answers: &[BuyerAnswer]) -> BTreeMap<AnswerKind, usize> {
    let mut tally = BTreeMap::new();
    answers.iter().for_each(|answer| *tally.entry(answer.kind).or_default() += 1);
    tally
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
        Self { client: BuyerClient::new(ANSWER_LIMIT), connections }
    }

    /// Returns the same buyers for another sale.
    #[must_use]
    pub fn of_sale(self, sale: &str) -> Self {
        Self { client: self.client.of_sale(sale), ..self }
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
        self.try_once(&purchase, None).await
    }

    async fn buy_until_definite(&self, purchase: PurchaseAttempt, deadline: Instant) -> BuyerAnswer {
        let (key, began) = (format!("{:032x}", random::<u128>()), Instant::now());
        for tries in 1.. {
            let answer = self.try_once(&purchase, Some(&key)).await;
            if answer.is_definite() || !wait_to_retry(answer.retry_after, deadline).await {
                return BuyerAnswer { latency: began.elapsed(), tries, ..answer };
            }
        }
        unreachable!("numbers do not end")
    }

    async fn try_once(&self, attempt: &PurchaseAttempt, key: Option<&str>) -> BuyerAnswer {
        let (began, PurchaseAttempt { user, base_url }) = (Instant::now(), attempt.clone());
        let purchase = PurchaseRequest { user: &user, key, ..PurchaseRequest::default() };
        let answer = self.client.buy(&base_url, purchase).await;
        BuyerAnswer { user, base_url, answer, latency: began.elapsed(), tries: 1 }
    }
}
