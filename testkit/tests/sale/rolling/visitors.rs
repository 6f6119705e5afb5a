//! Visitors who read the status, buy, and look up the purchase, again and again, each time as a new user.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use buyers::{Answer, AnswerKind, ApiFamily, BuyerClient, PurchaseRequest};
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
    let mut visitor = Visitor { client: BuyerClient::new(PATIENCE), url, requests: Vec::new() };
    for round in 0.. {
        if *traffic.closed.borrow() {
            break;
        }
        visitor.run_round(&format!("visitor-{number:03}-{round:04}")).await;
        traffic.rounds[number].fetch_add(1, Relaxed);
    }
    visitor.requests
}

struct Visitor {
    client: BuyerClient,
    url: String,
    requests: Vec<VisitorRequest>,
}

impl Visitor {
    async fn run_round(&mut self, user: &str) {
        let (client, url, family) = (self.client.clone(), self.url.clone(), ApiFamily::BySale);
        let is_active =
            |answer: &Answer| answer.sale_status().is_some_and(|status| status.status == "active");
        self.send(RequestKind::Status, client.status(&url, family), is_active).await;
        let purchase = PurchaseRequest { user, ..PurchaseRequest::default() };
        let is_bought = |answer: &Answer| answer.kind == AnswerKind::Purchased;
        let order = self.send(RequestKind::Purchase, client.buy(&url, purchase), is_bought).await;
        let has_order = |answer: &Answer| {
            let is_answered = matches!(answer.kind, AnswerKind::Found | AnswerKind::FoundNone);
            is_answered && (order.is_none() || answer.order == order)
        };
        self.send(RequestKind::Lookup, client.look_up(&url, family, user), has_order).await;
    }

    /// Sends a request. Returns the order in the answer when it is the right one.
    async fn send(
        &mut self,
        kind: RequestKind,
        request: impl Future<Output = Answer>,
        is_right: impl Fn(&Answer) -> bool,
    ) -> Option<String> {
        sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        let sent = Instant::now();
        let answer = request.await;
        let (latency, is_right) = (sent.elapsed(), is_right(&answer));
        let failure = (!is_right).then(|| answer.to_string());
        self.requests.push(VisitorRequest { kind, sent, latency, failure });
        answer.order.filter(|_| is_right)
    }
}
