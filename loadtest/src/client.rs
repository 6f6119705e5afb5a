//! The sale as a buyer reaches it: the calls of both families, each counted and each answer believed.
//!
//! Requests are sent here and not by Goose: it takes every 4xx for a failure, stops the clock at the answer's head, and
//! lets a user ask one thing at a time. It is told of each request afterwards. All users share connections, as many as
//! there are requests in flight.

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

/// A node answers or gives up well before, and nginx too; without an answer by then the buyer counts it as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How often a buyer tries before giving up: as often as the storefront's page does. It spans a failover.
const TRIES_MAX: u32 = 8;
/// How long a buyer waits before trying again where the answer does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(500);
/// Buyers who were sent away together do not all come back in the same moment.
const RETRY_JITTER: Duration = Duration::from_millis(250);

/// One sale, and what everybody was told at it.
#[derive(Debug)]
pub(crate) struct SaleClient {
    client: Client,
    url: String,
    /// Of the first family: `/api/sale`, or `/api/sales/{sale}`.
    path: String,
    is_default: bool,
    pub(crate) tally: Tally,
    pub(crate) ledger: AnswerLog,
}

/// A wish to buy, which its tries share.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) user: Arc<str>,
    pub(crate) family: ApiFamily,
    pub(crate) key: String,
    pub(crate) token: Option<String>,
}

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: &'static str,
    pub(crate) name: &'static str,
    pub(crate) status: Option<u16>,
    pub(crate) answer: Answer,
    /// Until the last byte of the answer; of events, until the first one.
    pub(crate) latency: Duration,
}

impl Attempt {
    /// An attempt of its own.
    pub(crate) fn new(user: Arc<str>, family: ApiFamily, token: Option<String>) -> Self {
        Self { user, family, key: format!("{:032x}", random::<u128>()), token }
    }
}

impl SaleClient {
    /// The shop behind a load balancer; of the default sale, or of the one with this id.
    pub(crate) fn new(url: &str, sale: Option<&str>) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).pool_max_idle_per_host(usize::MAX).build();
        Self {
            client: client.expect("nothing of these settings can be missing"),
            url: url.to_owned(),
            path: sale.map_or("/api/sale".into(), |sale| format!("/api/sales/{sale}")),
            is_default: sale.is_none(),
            tally: Tally::begin(),
            ledger: AnswerLog::default(),
        }
    }

    /// Where its load balancer is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The path of purchases by the first family.
    pub(crate) fn purchase_path(&self) -> String {
        format!("{}/purchase", self.path)
    }

    /// A family that buyers of this sale can have: the second one knows the default sale only.
    pub(crate) fn any_family(&self) -> ApiFamily {
        if self.is_default && random() { ApiFamily::Single } else { ApiFamily::BySale }
    }

    pub(crate) async fn status(&self, family: ApiFamily) -> Exchange {
        let url = self.api(family, "status");
        let read = |status, pause, body: &[u8]| Answer::to_status(family, status, pause, body);
        self.exchange("status", self.client.get(url), read).await
    }

    pub(crate) async fn csrf(&self) -> Exchange {
        self.exchange("csrf", self.client.get(format!("{}/api/csrf", self.url)), Answer::to_csrf).await
    }

    /// Whether this user has a unit.
    pub(crate) async fn look_up(&self, family: ApiFamily, user: &str) -> Exchange {
        let url = self.api(family, &format!("purchase/{user}"));
        let sent = Instant::now();
        let read = |status, pause, body: &[u8]| Answer::to_lookup(family, status, pause, body);
        let exchange = self.exchange("lookup", self.client.get(url), read).await;
        match &exchange.answer {
            Answer { kind: AnswerKind::Told, order: Some(order), .. } => self.ledger.has(user, order),
            Answer { kind: AnswerKind::Told, order: None, .. } => self.ledger.has_none(user, sent),
            _ => {}
        }
        exchange
    }

    /// Buys, again and again with one key, until the answer is definite or a buyer would give up.
    pub(crate) async fn buy(&self, via: &str, attempt: Attempt) -> Vec<Exchange> {
        let first = self.try_to_buy(via, &attempt, "purchase").await;
        let Answer { kind, token, retry_after, .. } = first.answer.clone();
        let mut tries = vec![first];
        if !kind.is_definite() {
            let token = token.or_else(|| attempt.token.clone());
            tries.extend(self.come_back(via, Attempt { token, ..attempt }, retry_after).await);
        }
        tries
    }

    /// Comes back with an attempt that has no definite answer after its first try, when that answer said so.
    pub(crate) async fn come_back(
        &self,
        via: &str,
        mut attempt: Attempt,
        mut pause: Option<Duration>,
    ) -> Vec<Exchange> {
        let mut tries = Vec::new();
        for _ in 1..TRIES_MAX {
            sleep(pause.unwrap_or(RETRY_AFTER_DEFAULT) + random_range(Duration::ZERO..RETRY_JITTER)).await;
            let exchange = self.try_to_buy(via, &attempt, "purchase again").await;
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

    async fn try_to_buy(&self, via: &str, attempt: &Attempt, name: &'static str) -> Exchange {
        let Attempt { user, family, key, token } = attempt;
        let url = format!("{via}{}", self.path_of(*family, "purchase"));
        let request = self.client.post(url).header("idempotency-key", key).json(&json!({ "userId": **user }));
        let with_token = |request: RequestBuilder, token: &String| {
            request.header("x-csrf-token", token).header(COOKIE, format!("csrfToken={token}"))
        };
        let (request, sent) = (token.iter().fold(request, with_token), Instant::now());
        let read = |status, pause, body: &[u8]| Answer::to_purchase(*family, status, pause, body);
        let exchange = self.exchange(name, request, read).await;
        self.believe(user, key, sent, &exchange.answer);
        exchange
    }

    /// Enters in the ledger what a buyer was told of a purchase.
    pub(crate) fn believe(&self, user: &str, key: &str, sent: Instant, answer: &Answer) {
        match (answer.kind, &answer.order) {
            (AnswerKind::Purchased, Some(order)) => self.ledger.purchased(user, key, order),
            (AnswerKind::AlreadyPurchased, Some(order)) => self.ledger.has(user, order),
            (AnswerKind::SoldOut, _) => self.ledger.has_none(user, sent),
            _ => {}
        }
    }

    /// Follows the sale's events for so long.
    pub(crate) async fn listen(&self, duration: Duration) -> Exchange {
        let (url, sent) = (format!("{}{}/events", self.url, self.path), Instant::now());
        let until = tokio::time::Instant::now() + duration;
        let request = self.client.get(url).timeout(duration + ANSWER_LIMIT);
        let (status, answer, latency) = match request.send().await {
            Ok(mut response) => {
                let (status, pause) = (response.status().as_u16(), retry_after(&response));
                let event = first_event(&mut response).await;
                let latency = sent.elapsed();
                // What follows is only heard: it keeps the connection busy, as a page does.
                while let Ok(Ok(Some(_))) = timeout_at(until, response.chunk()).await {}
                (Some(status), Answer::to_listener(status, pause, event.as_deref()), latency)
            }
            Err(_) => (None, Answer::none(), sent.elapsed()),
        };
        self.note_if_error("events", answer.kind, || format!("{status:?}, and no event that is a status"));
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
                self.note_if_error(name, answer.kind, || {
                    format!("{status} {}", String::from_utf8_lossy(&body))
                });
                (Some(status), answer)
            }
            Err(error) => {
                self.note_if_error(name, AnswerKind::Transport, || format!("{error:?}"));
                (None, Answer::none())
            }
        };
        let method = if name.starts_with("purchase") { "POST" } else { "GET" };
        self.count(Exchange { method, name, status, answer, latency: sent.elapsed() })
    }

    /// Keeps what was answered, where that is an error, for whoever has to find out why.
    pub(crate) fn note_if_error(&self, name: &str, kind: AnswerKind, answer: impl Fn() -> String) {
        if kind.is_error() {
            self.tally.note(|| format!("{name}, {}: {}", kind.name(), answer()));
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
            ApiFamily::Single => format!("/api/{call}"),
        }
    }
}

/// Status, when to come back, and the whole body.
async fn answered(request: RequestBuilder) -> reqwest::Result<(u16, Option<Duration>, Vec<u8>)> {
    let response = request.send().await?;
    let (status, pause) = (response.status().as_u16(), retry_after(&response));
    Ok((status, pause, response.bytes().await?.into()))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The data of the first event; none if the stream ends before.
async fn first_event(response: &mut Response) -> Option<Vec<u8>> {
    let mut heard = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        heard.extend_from_slice(&chunk);
        let text = String::from_utf8_lossy(&heard);
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        if let Some(data) = complete.lines().find_map(|line| line.strip_prefix("data:")) {
            return Some(data.trim().into());
        }
    }
    None
}
