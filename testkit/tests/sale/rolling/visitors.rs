//! Visitors who read the status, buy, and look up the purchase, again and again, each time as a new user.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Traffic;

/// Timeout of a request. A real visitor would have left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Range of the random pause between an answer and the next request, so that kept connections are both busy and idle.
const PAUSE_MS: std::ops::Range<u64> = 20..260;

/// One request and its result.
#[derive(Clone, Debug)]
pub(super) struct VisitorRequest {
    kind: RequestKind,
    pub(super) sent: Instant,
    pub(super) latency: Duration,
    /// The error, or `None` when the answer was right.
    pub(super) failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Status,
    Purchase,
    Lookup,
}

impl VisitorRequest {
    /// Returns true for an acknowledged purchase.
    pub(super) fn is_purchase(&self) -> bool {
        self.kind == RequestKind::Purchase && self.failure.is_none()
    }
}

/// Visits until the test closes the traffic.
pub(super) async fn visit(number: usize, url: String, traffic: Arc<Traffic>) -> Vec<VisitorRequest> {
    let client = Client::builder().pool_max_idle_per_host(1).timeout(PATIENCE).build().unwrap();
    let mut visitor = Visitor { client, url, requests: Vec::new() };
    for round in 0.. {
        if *traffic.closed.borrow() {
            break;
        }
        visitor.run_round(&format!("visitor-{number:03}-{round:04}")).await;
        traffic.rounds.fetch_add(1, Relaxed);
    }
    visitor.requests
}

struct Visitor {
    client: Client,
    url: String,
    requests: Vec<VisitorRequest>,
}

impl Visitor {
    async fn run_round(&mut self, user: &str) {
        let status = self.client.get(format!("{}/api/sale/status", self.url));
        self.send(RequestKind::Status, status, |answer| answer["status"] == "active").await;
        let purchase = self.client.post(format!("{}/api/sale/purchase", self.url));
        let purchase = purchase.json(&json!({ "userId": user }));
        let bought = self.send(RequestKind::Purchase, purchase, |answer| answer["orderId"].is_string()).await;
        let lookup = self.client.get(format!("{}/api/sale/purchase/{user}", self.url));
        let order = bought.map(|answer| answer["orderId"].clone());
        let has_order = |answer: &Value| order.as_ref().is_none_or(|order| answer["orderId"] == *order);
        self.send(RequestKind::Lookup, lookup, has_order).await;
    }

    /// Sends a request. Returns the answer when it is the right one.
    async fn send(
        &mut self,
        kind: RequestKind,
        request: RequestBuilder,
        is_right: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        let sent = Instant::now();
        let answer = answer(request, is_right).await;
        let failure = answer.as_ref().err().map(|error| format!("{error:?}"));
        self.requests.push(VisitorRequest { kind, sent, latency: sent.elapsed(), failure });
        answer.ok()
    }
}

async fn answer(request: RequestBuilder, is_right: impl Fn(&Value) -> bool) -> Result<Value> {
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    ensure!(status == StatusCode::OK, "{status}: {text}");
    let answer = serde_json::from_str(&text)?;
    ensure!(is_right(&answer), "{status}: {text}");
    Ok(answer)
}
