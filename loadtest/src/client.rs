//! HTTP client of buyers, for both families of endpoints. Counts each request and logs each answer.
//!
//! Goose does not send the requests itself, for three reasons: it counts every 4xx as a failure, it stops its clock at
//! the response's head, and a user of Goose sends one request at a time. Requests are reported to Goose afterwards. All
//! users share connections, as many as there are requests in flight.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use buyers::{
    ANSWER_LIMIT, Answer, ApiFamily, BuyerClient, PurchaseRequest, Received, retry_after, retry_pause,
};
use rand::random;
use reqwest::Response;
use stock::ids::SaleId;
use tokio::time::{sleep, timeout_at};

use crate::{answer_log::AnswerLog, tally::Tally};

/// Tries of an attempt before a buyer gives up: as many as the storefront's page makes. They span a failover.
const TRIES_MAX: usize = 8;

/// Client of one sale. Logs the answers to all buyers.
#[derive(Debug)]
pub(crate) struct SaleClient {
    client: BuyerClient,
    url: String,
    is_default: bool,
    pub(crate) tally: Tally,
    pub(crate) answer_log: AnswerLog,
}

/// An attempt to buy. Its tries share it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) user: Arc<str>,
    pub(crate) family: ApiFamily,
    pub(crate) key: String,
    pub(crate) token: Option<String>,
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: &'static str,
    pub(crate) name: &'static str,
    pub(crate) answer: Answer,
    /// Time until the last byte of the answer, or until the first event.
    pub(crate) latency: Duration,
}

impl Attempt {
    /// Creates an attempt with a random key.
    pub(crate) fn new(user: Arc<str>, family: ApiFamily, token: Option<String>) -> Self {
        Self { user, family, key: format!("{:032x}", random::<u128>()), token }
    }
}

impl SaleClient {
    /// Creates a client of this sale behind a load balancer. Only the default sale has both families of endpoints.
    pub(crate) fn new(url: &str, sale: SaleId, is_default: bool) -> Self {
        let client = BuyerClient::new(ANSWER_LIMIT);
        Self {
            client: if is_default { client } else { client.of_sale(sale.as_str()) },
            url: url.to_owned(),
            is_default,
            tally: Tally::begin(),
            answer_log: AnswerLog::new(sale),
        }
    }

    /// URL of the load balancer.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Path of purchases of the by-sale endpoints.
    pub(crate) fn purchase_path(&self) -> String {
        self.client.path(ApiFamily::BySale, "purchase")
    }

    /// Returns a random family of endpoints that supports this sale. The single-sale endpoints support only the
    /// default sale.
    pub(crate) fn any_family(&self) -> ApiFamily {
        if self.is_default && random() { ApiFamily::SingleSale } else { ApiFamily::BySale }
    }

    pub(crate) async fn status(&self, family: ApiFamily) -> Exchange {
        let sent = Instant::now();
        let answer = self.client.status(&self.url, family).await;
        self.count("status", sent.elapsed(), answer)
    }

    pub(crate) async fn csrf(&self) -> Exchange {
        let sent = Instant::now();
        let answer = self.client.csrf(&self.url).await;
        self.count("csrf", sent.elapsed(), answer)
    }

    /// Looks up the purchase of this user.
    pub(crate) async fn look_up(&self, family: ApiFamily, user: &str) -> Exchange {
        let sent = Instant::now();
        let answer = self.client.look_up(&self.url, family, user).await;
        self.answer_log.lookup(user, family, sent, &answer);
        self.count("lookup", sent.elapsed(), answer)
    }

    /// Buys: retries one attempt until the answer is definite or the buyer gives up. Returns all tries.
    pub(crate) async fn buy(&self, base_url: &str, attempt: Attempt) -> Vec<Exchange> {
        let first = self.try_to_buy(base_url, &attempt, "purchase").await;
        let answer = first.answer.clone();
        [vec![first], self.retry(base_url, attempt, answer).await].concat()
    }

    /// Retries an attempt until its answer is definite or the buyer gives up. Returns the tries after the one with this
    /// answer.
    pub(crate) async fn retry(
        &self,
        base_url: &str,
        mut attempt: Attempt,
        mut answer: Answer,
    ) -> Vec<Exchange> {
        let mut tries = Vec::new();
        while !answer.kind.is_definite() {
            if tries.len() + 1 == TRIES_MAX {
                self.tally.gave_up();
                break;
            }
            sleep(retry_pause(answer.retry_after)).await;
            attempt.token = answer.token.or(attempt.token);
            let exchange = self.try_to_buy(base_url, &attempt, "purchase again").await;
            answer = exchange.answer.clone();
            tries.push(exchange);
        }
        tries
    }

    async fn try_to_buy(&self, base_url: &str, attempt: &Attempt, name: &'static str) -> Exchange {
        let (Attempt { user, family, key, token }, sent) = (attempt, Instant::now());
        let purchase = PurchaseRequest { user, family: *family, key: Some(key), token: token.as_deref() };
        let answer = self.client.buy(base_url, purchase).await;
        self.answer_log.purchase(user, *family, key, sent, &answer);
        self.count(name, sent.elapsed(), answer)
    }

    /// Listens to the sale's events for this time.
    pub(crate) async fn listen(&self, duration: Duration) -> Exchange {
        let (sent, until) = (Instant::now(), tokio::time::Instant::now() + duration);
        let request = self.client.get(&self.url, ApiFamily::BySale, "events");
        let (answer, latency) = match request.timeout(duration + ANSWER_LIMIT).send().await {
            Ok(mut response) => {
                let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
                let body = first_event(&mut response).await.unwrap_or_default();
                let latency = sent.elapsed();
                // Later events are read and dropped. They keep the connection busy, as a page does.
                while let Ok(Ok(Some(_))) = timeout_at(until, response.chunk()).await {}
                (Answer::to_status(ApiFamily::BySale, Received { status, retry_after, body }), latency)
            }
            Err(error) => (Answer::lost(&error), sent.elapsed()),
        };
        self.count("events", latency, answer)
    }

    /// Counts an answer, and keeps it for the report if it is an error.
    pub(crate) fn count(&self, name: &'static str, latency: Duration, answer: Answer) -> Exchange {
        if answer.kind.is_error() {
            self.tally.record_error(|| format!("{name}, {answer}"));
        }
        self.tally.answered(name, answer.kind, latency);
        let method = if name.starts_with("purchase") { "POST" } else { "GET" };
        Exchange { method, name, answer, latency }
    }
}

/// Returns the data of the first event. None if the stream ends before.
async fn first_event(response: &mut Response) -> Option<Vec<u8>> {
    let mut received = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        received.extend_from_slice(&chunk);
        let text = String::from_utf8_lossy(&received);
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        if let Some(data) = complete.lines().find_map(|line| line.strip_prefix("data:")) {
            return Some(data.trim().into());
        }
    }
    None
}
