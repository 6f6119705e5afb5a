//! Who looks at the status, buys, and looks the purchase up, again and again, each time as somebody new.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

/// Whoever waits longer has gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// From an answer to the next request, by chance: kept connections are busy and idle by turns.
const PAUSE_MS: std::ops::Range<u64> = 20..260;

/// One request, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    what: What,
    pub(super) sent: Instant,
    pub(super) latency: Duration,
    /// What was wrong, where anything was.
    pub(super) failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Status,
    Purchase,
    Lookup,
}

impl Asked {
    /// Whether somebody was told `purchased`.
    pub(super) fn is_a_purchase(&self) -> bool {
        self.what == What::Purchase && self.failure.is_none()
    }
}

/// Visits until the shop closes.
pub(super) async fn visit(number: usize, url: String, closed: watch::Receiver<bool>) -> Vec<Asked> {
    let client = Client::builder().pool_max_idle_per_host(1).timeout(PATIENCE).build().unwrap();
    let mut visitor = Visitor { client, url, asked: Vec::new() };
    for turn in 0.. {
        if *closed.borrow() {
            break;
        }
        visitor.turn(&format!("visitor-{number:03}-{turn:04}")).await;
    }
    visitor.asked
}

struct Visitor {
    client: Client,
    url: String,
    asked: Vec<Asked>,
}

impl Visitor {
    async fn turn(&mut self, user: &str) {
        let status = self.client.get(format!("{}/api/sale/status", self.url));
        self.ask(What::Status, status, |answer| answer["status"] == "active").await;
        let purchase = self.client.post(format!("{}/api/sale/purchase", self.url));
        let purchase = purchase.json(&json!({ "userId": user }));
        let bought = self.ask(What::Purchase, purchase, |answer| answer["orderId"].is_string()).await;
        let lookup = self.client.get(format!("{}/api/sale/purchase/{user}", self.url));
        let order = bought.map(|answer| answer["orderId"].clone());
        let is_told = |answer: &Value| order.as_ref().is_none_or(|order| answer["orderId"] == *order);
        self.ask(What::Lookup, lookup, is_told).await;
    }

    /// The answer, if it is the right one.
    async fn ask(
        &mut self,
        what: What,
        request: RequestBuilder,
        is_right: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        let sent = Instant::now();
        let answer = answer(request, is_right).await;
        let failure = answer.as_ref().err().map(|error| format!("{error:?}"));
        self.asked.push(Asked { what, sent, latency: sent.elapsed(), failure });
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
