//! HTTP client of buyers, for both families of endpoints. Counts each request and logs each answer.
//!
//! Goose does not send the requests itself, for three reasons: it counts every 4xx as a failure, it stops its clock at
//! the response's head, and a user of Goose sends one request at a time. Requests are reported to Goose afterwards. All
//! users share connections, as many as there are requests in flight.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{random, random_range};
use reqwest::{
    Client, RequestBuilder, Response,
    header::{COOKIE, RETRY_AFTER},
};
use serde_json::json;
use tokio::time::{sleep, timeout_at};

use crate::{
    answer_log::AnswerLog,
    answers::{Answer, AnswerKind, ApiFamily},
    tally::Tally,
};

/// Time limit of a request. Nodes and nginx answer or give up well before; later the buyer counts the answer as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Tries of an attempt before a buyer gives up: as many as the storefront's page makes. They span a failover.
const TRIES_MAX: u32 = 8;
/// Pause before a retry when the answer has no `Retry-After`.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(500);
/// Random part of the pause, so that buyers rejected together do not retry together.
const RETRY_JITTER: Duration = Duration::from_millis(250);

/// Client of one sale. Logs the answers to all buyers.
#[derive(Debug)]
pub(crate) struct SaleClient {
    client: Client,
    url: String,
    /// Path of the by-sale endpoints: `/api/sale`, or `/api/sales/{sale}`.
    path: String,
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
    pub(crate) status: Option<u16>,
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
    /// Creates a client of the sale with this id behind a load balancer, or of the default sale if `sale` is `None`.
    pub(crate) fn new(url: &str, sale: Option<&str>) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).pool_max_idle_per_host(usize::MAX).build();
        Self {
            client: client.expect("a client with these settings can be built"),
            url: url.to_owned(),
            path: sale.map_or("/api/sale".into(), |sale| format!("/api/sales/{sale}")),
            is_default: sale.is_none(),
            tally: Tally::begin(),
            answer_log: AnswerLog::default(),
        }
    }

    /// URL of the load balancer.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Path of purchases of the by-sale endpoints.
    pub(crate) fn purchase_path(&self) -> String {
        format!("{}/purchase", self.path)
    }

    /// Returns a random family of endpoints that supports this sale. The single-sale endpoints support only the
    /// default sale.
    pub(crate) fn any_family(&self) -> ApiFamily {
        if self.is_default && random() { ApiFamily::SingleSale } else { ApiFamily::BySale }
    }

    pub(crate) async fn status(&self, family: ApiFamily) -> Exchange {
        let url = self.api(family, "status");
        let read = |status, pause, body: &[u8]| Answer::to_status(family, status, pause, body);
        self.exchange("status", self.client.get(url), read).await
    }

    pub(crate) async fn csrf(&self) -> Exchange {
        self.exchange("csrf", self.client.get(format!("{}/api/csrf", self.url)), Answer::to_csrf).await
    }

    /// Looks up the purchase of this user.
    pub(crate) async fn look_up(&self, family: ApiFamily, user: &str) -> Exchange {
        let url = self.api(family, &format!("purchase/{user}"));
        let sent = Instant::now();
        let read = |status, pause, body: &[u8]| Answer::to_lookup(family, status, pause, body);
        let exchange = self.exchange("lookup", self.client.get(url), read).await;
        match &exchange.answer {
            Answer { kind: AnswerKind::Data, order: Some(order), .. } => self.answer_log.has(user, order),
            Answer { kind: AnswerKind::Data, order: None, .. } => self.answer_log.has_none(user, sent),
            _ => {}
        }
        exchange
    }

    /// Buys: retries one attempt until the answer is definite or the buyer gives up. Returns all tries.
    pub(crate) async fn buy(&self, base_url: &str, attempt: Attempt) -> Vec<Exchange> {
        let first = self.try_to_buy(base_url, &attempt, "purchase").await;
        let Answer { kind, token, retry_after, .. } = first.answer.clone();
        let mut tries = vec![first];
        if !kind.is_definite() {
            let token = token.or_else(|| attempt.token.clone());
            tries.extend(self.retry(base_url, Attempt { token, ..attempt }, retry_after).await);
        }
        tries
    }

    /// Retries an attempt whose first try got no definite answer, after the pause that the answer asks for.
    pub(crate) async fn retry(
        &self,
        base_url: &str,
        mut attempt: Attempt,
        mut pause: Option<Duration>,
    ) -> Vec<Exchange> {
        let mut tries = Vec::new();
        for _ in 1..TRIES_MAX {
            sleep(pause.unwrap_or(RETRY_AFTER_DEFAULT) + random_range(Duration::ZERO..RETRY_JITTER)).await;
            let exchange = self.try_to_buy(base_url, &attempt, "purchase again").await;
            let Answer { kind, token, retry_after, .. } = exchange.answer.clone();
            tries.push(exchange);
            if kind.is_definite() {
                return tries;
            }
            (attempt.token, pause) = (token.or(attempt.token), retry_after);
        }
        self.tally.gave_up();
        tries
    }

    async fn try_to_buy(&self, base_url: &str, attempt: &Attempt, name: &'static str) -> Exchange {
        let Attempt { user, family, key, token } = attempt;
        let url = format!("{base_url}{}", self.path_of(*family, "purchase"));
        let request = self.client.post(url).header("idempotency-key", key).json(&json!({ "userId": **user }));
        let with_token = |request: RequestBuilder, token: &String| {
            request.header("x-csrf-token", token).header(COOKIE, format!("csrfToken={token}"))
        };
        let (request, sent) = (token.iter().fold(request, with_token), Instant::now());
        let read = |status, pause, body: &[u8]| Answer::to_purchase(*family, status, pause, body);
        let exchange = self.exchange(name, request, read).await;
        self.log_answer(user, key, sent, &exchange.answer);
        exchange
    }

    /// Logs the answer to a purchase.
    pub(crate) fn log_answer(&self, user: &str, key: &str, sent: Instant, answer: &Answer) {
        match (answer.kind, &answer.order) {
            (AnswerKind::Purchased, Some(order)) => self.answer_log.purchased(user, key, order),
            (AnswerKind::AlreadyPurchased, Some(order)) => self.answer_log.has(user, order),
            (AnswerKind::SoldOut, _) => self.answer_log.has_none(user, sent),
            _ => {}
        }
    }

    /// Listens to the sale's events for this time.
    pub(crate) async fn listen(&self, duration: Duration) -> Exchange {
        let (url, sent) = (format!("{}{}/events", self.url, self.path), Instant::now());
        let until = tokio::time::Instant::now() + duration;
        let request = self.client.get(url).timeout(duration + ANSWER_LIMIT);
        let (status, answer, latency) = match request.send().await {
            Ok(mut response) => {
                let (status, pause) = (response.status().as_u16(), retry_after(&response));
                let event = first_event(&mut response).await;
                let latency = sent.elapsed();
                // Later events are read and dropped. They keep the connection busy, as a page does.
                while let Ok(Ok(Some(_))) = timeout_at(until, response.chunk()).await {}
                (Some(status), Answer::to_listener(status, pause, event.as_deref()), latency)
            }
            Err(_) => (None, Answer::none(), sent.elapsed()),
        };
        self.record_error("events", answer.kind, || format!("{status:?}, and no event that is a status"));
        self.count(Exchange { method: "GET", name: "events", status, answer, latency })
    }

    async fn exchange(
        &self,
        name: &'static str,
        request: RequestBuilder,
        read: impl Fn(u16, Option<Duration>, &[u8]) -> Answer,
    ) -> Exchange {
        let sent = Instant::now();
        let (status, answer) = match answered(request).await {
            Ok((status, pause, body)) => {
                let answer = read(status, pause, &body);
                self.record_error(name, answer.kind, || {
                    format!("{status} {}", String::from_utf8_lossy(&body))
                });
                (Some(status), answer)
            }
            Err(error) => {
                self.record_error(name, AnswerKind::Transport, || format!("{error:?}"));
                (None, Answer::none())
            }
        };
        let method = if name.starts_with("purchase") { "POST" } else { "GET" };
        self.count(Exchange { method, name, status, answer, latency: sent.elapsed() })
    }

    /// Keeps an answer that is an error, for the report.
    pub(crate) fn record_error(&self, name: &str, kind: AnswerKind, answer: impl Fn() -> String) {
        if kind.is_error() {
            self.tally.record_error(|| format!("{name}, {}: {}", kind.name(), answer()));
        }
    }

    fn count(&self, exchange: Exchange) -> Exchange {
        self.tally.answered(exchange.name, exchange.answer.kind, exchange.latency);
        exchange
    }

    fn api(&self, family: ApiFamily, call: &str) -> String {
        format!("{}{}", self.url, self.path_of(family, call))
    }

    fn path_of(&self, family: ApiFamily, call: &str) -> String {
        match family {
            ApiFamily::BySale => format!("{}/{call}", self.path),
            ApiFamily::SingleSale => format!("/api/{call}"),
        }
    }
}

/// Sends a request. Returns the status, `Retry-After` and the whole body.
async fn answered(request: RequestBuilder) -> reqwest::Result<(u16, Option<Duration>, Vec<u8>)> {
    let response = request.send().await?;
    let (status, pause) = (response.status().as_u16(), retry_after(&response));
    Ok((status, pause, response.bytes().await?.into()))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
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
