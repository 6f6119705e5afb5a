//! Rolling restarts of everything while visitors use the sale: no request fails.

mod listeners;
mod visitors;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use testkit::stack::RolloutStep;
use testkit::{StackOptions, until};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::listeners::{ListenerResult, listen};
use self::visitors::{VisitorRequest, visit};
use crate::fixture::{OpenSale, TIMEOUT, percentile, sale_options};

/// More units than visitors buy during a test.
const UNITS: u64 = 200_000;
/// Each visitor and each listener has its own connection to nginx.
const VISITORS: usize = 240;
const LISTENERS: usize = 40;
/// Rounds of a visitor before the first step and after the last one, to measure normal latency.
const ROUNDS: usize = 4;
/// The 3 s in which listeners of a stopped node reconnect, and some for a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn replacing_nodes_in_turn_fails_no_request() {
    let sale = start_sale().await;
    let result = visited_during(async |record, _| sale.stack.roll_nodes(record).await, &sale).await;
    result.assert_no_failures(&sale).await;
    assert!(
        result.listeners.iter().all(|listener| listener.streams > 1),
        "each listener used a node that was stopped"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_nodes_with_a_spare_fails_no_request() {
    let sale = start_sale().await;
    sale.stack.start_node().await.unwrap().process().kill();
    let result =
        visited_during(async |record, _| sale.stack.roll_nodes_with_spare(record).await, &sale).await;
    result.assert_no_failures(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_coordinators_in_turn_fails_no_request() {
    let sale = start_sale().await;
    let result = visited_during(async |record, _| sale.stack.roll_coordinators(record).await, &sale).await;
    result.assert_no_failures(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_redis_servers_fails_no_request() {
    let sale = start_sale().await;
    // A purchase can wait up to a second for a server to follow its primary. One that met two steps would wait longer
    // than its timeout, so each step begins when all visitors were answered, as `minReadySeconds` does it on Kubernetes.
    let roll = async |record: &mut dyn FnMut(RolloutStep), traffic: &Traffic| {
        sale.stack.roll_redis(record, async || traffic.wait_for_rounds(1).await).await
    };
    let result = visited_during(roll, &sale).await;
    result.assert_no_failures(&sale).await;
}

async fn start_sale() -> OpenSale {
    service::files::raise_open_files_limit();
    OpenSale::start_with(StackOptions {
        coordinators: 2,
        sale: sale_options(UNITS),
        ..StackOptions::default()
    })
    .await
}

/// Runs a rolling restart while visitors and listeners use the sale through nginx, and for some rounds before and after.
async fn visited_during(
    restart: impl AsyncFnOnce(&mut dyn FnMut(RolloutStep), &Traffic) -> anyhow::Result<()>,
    sale: &OpenSale,
) -> RolloutResult {
    let (traffic, url) = (Arc::new(Traffic::new()), sale.stack.url());
    let visitors: JoinSet<_> =
        (0..VISITORS).map(|number| visit(number, url.clone(), Arc::clone(&traffic))).collect();
    let listeners: JoinSet<_> = (0..LISTENERS).map(|_| listen(url.clone(), Arc::clone(&traffic))).collect();
    let mut steps = Vec::new();
    traffic.wait_for_rounds(ROUNDS).await;
    let mut record = |step: RolloutStep| {
        println!("  {:5.2?}  {}", step.duration, step.description);
        steps.push(step);
    };
    restart(&mut record, &traffic).await.unwrap();
    traffic.wait_for_rounds(ROUNDS).await;
    traffic.closed.send_replace(true);
    let requests = visitors.join_all().await.into_iter().flatten().collect();
    RolloutResult { requests, listeners: listeners.join_all().await, steps }
}

/// The state of all visitors and listeners of a sale.
struct Traffic {
    closed: watch::Sender<bool>,
    /// Rounds that each visitor has finished.
    rounds: Vec<AtomicUsize>,
    /// Open streams of listeners.
    streams: AtomicUsize,
}

impl Traffic {
    fn new() -> Self {
        let rounds = (0..VISITORS).map(|_| AtomicUsize::new(0)).collect();
        Self { closed: watch::Sender::new(false), rounds, streams: AtomicUsize::new(0) }
    }

    /// Waits until each listener listens, and until each visitor has finished this number of rounds more.
    async fn wait_for_rounds(&self, rounds: usize) {
        let ends: Vec<usize> = self.rounds.iter().map(|finished| finished.load(Relaxed) + rounds).collect();
        let is_over = async || {
            let visitors = self.rounds.iter().zip(&ends);
            visitors.into_iter().all(|(finished, end)| finished.load(Relaxed) >= *end)
                && self.streams.load(Relaxed) == LISTENERS
        };
        until("undisturbed rounds", TIMEOUT, is_over).await.unwrap();
    }
}

/// The requests, streams and steps of a rolling restart.
struct RolloutResult {
    requests: Vec<VisitorRequest>,
    listeners: Vec<ListenerResult>,
    steps: Vec<RolloutStep>,
}

impl RolloutResult {
    /// Asserts that every request got the right answer, and that the claims equal the acknowledged purchases.
    async fn assert_no_failures(&self, sale: &OpenSale) {
        let failures: Vec<_> = self.requests.iter().filter(|request| request.failure.is_some()).collect();
        let purchased = self.requests.iter().filter(|request| request.is_purchase()).count();
        let (meanwhile, quiet): (Vec<&VisitorRequest>, Vec<&VisitorRequest>) =
            self.requests.iter().partition(|request| self.steps.iter().any(|step| overlaps(step, request)));
        let streams: usize = self.listeners.iter().map(|listener| listener.streams).sum();
        println!(
            "{} requests, {purchased} of them purchases, {} failed; p99 {:.1?} and longest {:.1?} during the steps, {:.1?} and \
             {:.1?} in between; {} listeners, {streams} streams",
            self.requests.len(),
            failures.len(),
            p99(&meanwhile),
            longest(&meanwhile),
            p99(&quiet),
            longest(&quiet),
            self.listeners.len(),
        );
        for failure in failures.iter().take(10) {
            println!("  {failure:?}");
        }
        assert!(failures.is_empty(), "{} requests failed", failures.len());
        let cut: Vec<&String> = self.listeners.iter().flat_map(|listener| &listener.failures).collect();
        assert!(cut.is_empty(), "{} streams failed: {:?}", cut.len(), cut.first());
        let silence = self.listeners.iter().map(|listener| listener.longest_silence).max().unwrap();
        assert!(silence < SILENCE_MAX, "a listener received no event for {silence:?}");

        let audit = sale.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "the audit found {:?}", audit.violations);
        assert_eq!(audit.claims, purchased as u64, "claims and acknowledged purchases");
    }
}

/// Returns true when the request was in flight during the step.
fn overlaps(step: &RolloutStep, request: &VisitorRequest) -> bool {
    request.sent < step.started_at + step.duration && request.sent + request.latency > step.started_at
}

fn p99(requests: &[&VisitorRequest]) -> Duration {
    percentile(99, requests.iter().map(|request| request.latency))
}

fn longest(requests: &[&VisitorRequest]) -> Duration {
    requests.iter().map(|request| request.latency).max().unwrap_or_default()
}
