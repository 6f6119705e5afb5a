//! A crowd of buyers: purchases over real connections, with the answers as a buyer reads them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use rand::random;
use reqwest::{Client, Response, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::json;

/// A node answers or gives up well before; without an answer by then the buyer counts it as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How long a buyer waits before trying again where the answer does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(200);

/// Between two rounds of a crowd that is only there to see what happens: it leaves the machine to what happens.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);

/// One wish to buy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurchaseAttempt {
    /// The buyer.
    pub user: String,
    /// Whom it is sent to: `http://…` of nginx or of one node.
    pub base_url: String,
}

/// What a buyer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyerAnswer {
    /// The buyer.
    pub user: String,
    /// Who was asked.
    pub base_url: String,
    /// The status of the last answer; none if none came.
    pub status: Option<u16>,
    /// `already_purchased`, `out_of_stock`, … where the answer gives one; what broke, if no answer came.
    pub reason: Option<String>,
    /// The order, where the answer names one.
    pub order_id: Option<String>,
    /// When that order was made, where the answer says.
    pub purchased_at: Option<String>,
    /// From the first byte of the first try to the last byte of the last answer.
    pub latency: Duration,
    /// How often it was tried.
    pub tries: u32,
}

impl BuyerAnswer {
    /// Whether this very request bought.
    pub fn is_purchased(&self) -> bool {
        self.status == Some(200)
    }

    /// Whether the outcome is known: nothing would change it (no 429, no 5xx, no lost answer).
    pub fn is_definite(&self) -> bool {
        self.status.is_some_and(|status| status != StatusCode::TOO_MANY_REQUESTS && status < 500)
    }
}

/// Buyers who share a bounded number of connections.
#[derive(Clone, Debug)]
pub struct Buyers {
    client: Client,
    connections: usize,
    path: String,
}

impl Buyers {
    /// Buyers of the default sale who send at most this many requests at a time, each on a connection of its own.
    pub fn new(connections: usize) -> Self {
        let client = Client::builder().pool_max_idle_per_host(connections).timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client without TLS has nothing that could fail");
        Self { client, connections, path: "/api/sale/purchase".into() }
    }

    /// The same buyers, at another sale.
    #[must_use]
    pub fn of_sale(self, sale: &str) -> Self {
        Self { path: format!("/api/sales/{sale}/purchase"), ..self }
    }

    /// Sends each purchase once; answers come in the order in which they arrived.
    pub async fn buy(&self, purchases: Vec<PurchaseAttempt>) -> Vec<BuyerAnswer> {
        self.at_most_at_once(purchases, |purchase| self.once(purchase)).await
    }

    /// Sends each purchase until its outcome is definite or `limit` is over; the tries of one purchase carry one
    /// `Idempotency-Key`, and wait for as long as the answers ask.
    pub async fn buy_persistently(
        &self,
        purchases: Vec<PurchaseAttempt>,
        limit: Duration,
    ) -> Vec<BuyerAnswer> {
        let deadline = Instant::now() + limit;
        self.at_most_at_once(purchases, |purchase| self.until_definite(purchase, deadline)).await
    }

    /// Has ever new users buy, each once and as many at a time as there are connections, until `event` is over.
    pub async fn buy_during<T>(
        &self,
        base_url: &str,
        event: impl Future<Output = T>,
    ) -> (T, Vec<BuyerAnswer>) {
        let (crowd, over) = (random::<u32>(), AtomicBool::new(false));
        let event = async {
            let outcome = event.await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let buying = async {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let numbers = answers.len()..answers.len() + self.connections;
                let users = numbers.map(|n| format!("passer-by-{crowd:08x}-{n}"));
                let wishes = users.map(|user| PurchaseAttempt { user, base_url: base_url.to_owned() });
                answers.extend(self.buy(wishes.collect()).await);
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
            answers
        };
        tokio::join!(event, buying)
    }

    async fn at_most_at_once<Buying>(
        &self,
        purchases: Vec<PurchaseAttempt>,
        buy: impl Fn(PurchaseAttempt) -> Buying,
    ) -> Vec<BuyerAnswer>
    where
        Buying: Future<Output = BuyerAnswer>,
    {
        stream::iter(purchases).map(buy).buffer_unordered(self.connections).collect().await
    }

    async fn once(&self, purchase: PurchaseAttempt) -> BuyerAnswer {
        self.try_once(&purchase, None).await.0
    }

    async fn until_definite(&self, purchase: PurchaseAttempt, deadline: Instant) -> BuyerAnswer {
        let (key, began) = (format!("{:032x}", random::<u128>()), Instant::now());
        let mut tries = 1;
        loop {
            let (answer, pause) = self.try_once(&purchase, Some(&key)).await;
            if answer.is_definite() || Instant::now() + pause > deadline {
                return BuyerAnswer { latency: began.elapsed(), tries, ..answer };
            }
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }

    /// One try, and how long to wait before the next.
    async fn try_once(&self, purchase: &PurchaseAttempt, key: Option<&str>) -> (BuyerAnswer, Duration) {
        let began = Instant::now();
        let url = format!("{}{}", purchase.base_url, self.path);
        let request = self.client.post(url).json(&json!({ "userId": purchase.user }));
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let (status, told, pause) = match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => (None, AnswerBody::broken(&error), RETRY_AFTER_DEFAULT),
        };
        let AnswerBody { reason, order_id, purchased_at } = told;
        let (user, base_url) = (purchase.user.clone(), purchase.base_url.clone());
        let latency = began.elapsed();
        (BuyerAnswer { user, base_url, status, reason, order_id, purchased_at, latency, tries: 1 }, pause)
    }
}

/// The fields of an answer's body that a buyer looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerBody {
    reason: Option<String>,
    order_id: Option<String>,
    purchased_at: Option<String>,
}

impl AnswerBody {
    fn broken(error: &reqwest::Error) -> Self {
        Self { reason: Some(format!("{error:?}")), ..Self::default() }
    }
}

async fn read(response: Response) -> (Option<u16>, AnswerBody, Duration) {
    let status = response.status().as_u16();
    let pause = retry_after(&response);
    match response.bytes().await {
        Ok(body) => (Some(status), serde_json::from_slice(&body).unwrap_or_default(), pause),
        Err(error) => (None, AnswerBody::broken(&error), pause),
    }
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RETRY_AFTER_DEFAULT, Duration::from_secs)
}
