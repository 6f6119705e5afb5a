//! Everything is replaced, one process after the other, while a shop full of people buys: nobody notices.

mod listeners;
mod visitors;

use std::time::Duration;

use testkit::StackOptions;
use testkit::stack::RolloutStep;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::listeners::{HeardEvents, listen};
use self::visitors::{Asked, visit};
use crate::actors::{OpenSale, sale_of};

/// More than anybody buys meanwhile.
const UNITS: u64 = 200_000;
/// Each has a connection to nginx of its own, and so have those who listen.
const VISITORS: usize = 240;
const LISTENERS: usize = 40;
/// Before the first step and after the last one, for a picture of quiet times. Who listened to a node that went is told
/// to come back within 3 s.
const QUIET: Duration = Duration::from_millis(3_500);
/// Those 3 s, and some for a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_replaced_in_turn_fail_nobody() {
    let sale = visited_sale().await;
    let mut shop = Shop::open(&sale);

    shop.quiet().await;
    sale.stack.roll_nodes(|step| shop.saw(step)).await.unwrap();
    shop.quiet().await;

    let story = shop.close().await;
    story.assert_nobody_noticed(&sale).await;
    assert!(story.heard.iter().all(|heard| heard.streams > 1), "each of them listened to a node that went");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_successors_come_first_fail_nobody() {
    let sale = visited_sale().await;
    let spare = sale.stack.start_node().await.unwrap();
    spare.process().kill();
    let mut shop = Shop::open(&sale);

    shop.quiet().await;
    sale.stack.roll_nodes_with_spare(|step| shop.saw(step)).await.unwrap();
    shop.quiet().await;

    let story = shop.close().await;
    story.assert_nobody_noticed(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_that_are_replaced_in_turn_fail_nobody() {
    let sale = visited_sale().await;
    let mut shop = Shop::open(&sale);

    shop.quiet().await;
    sale.stack.roll_coordinators(|step| shop.saw(step)).await.unwrap();
    shop.quiet().await;

    let story = shop.close().await;
    story.assert_nobody_noticed(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_servers_that_are_replaced_in_turn_fail_nobody() {
    let sale = visited_sale().await;
    let mut shop = Shop::open(&sale);

    shop.quiet().await;
    sale.stack.roll_redis(|step| shop.saw(step)).await.unwrap();
    shop.quiet().await;

    let story = shop.close().await;
    story.assert_nobody_noticed(&sale).await;
}

async fn visited_sale() -> OpenSale {
    service::files::raise_open_files_limit();
    OpenSale::with(StackOptions { coordinators: 2, sale: sale_of(UNITS), ..StackOptions::default() }).await
}

/// People at a shop, and what is done to it meanwhile.
struct Shop {
    closed: watch::Sender<bool>,
    visitors: JoinSet<Vec<Asked>>,
    listeners: JoinSet<HeardEvents>,
    steps: Vec<RolloutStep>,
}

impl Shop {
    /// All come at once, through nginx.
    fn open(sale: &OpenSale) -> Self {
        let (closed, url) = (watch::Sender::new(false), sale.stack.url());
        let visitors = (0..VISITORS).map(|number| visit(number, url.clone(), closed.subscribe())).collect();
        let listeners = (0..LISTENERS).map(|_| listen(url.clone(), closed.subscribe())).collect();
        Self { closed, visitors, listeners, steps: Vec::new() }
    }

    async fn quiet(&self) {
        sleep(QUIET).await;
    }

    fn saw(&mut self, step: RolloutStep) {
        println!("  {:5.2?}  {}", step.duration, step.description);
        self.steps.push(step);
    }

    async fn close(self) -> Story {
        self.closed.send_replace(true);
        let asked = self.visitors.join_all().await.into_iter().flatten().collect();
        Story { asked, heard: self.listeners.join_all().await, steps: self.steps }
    }
}

/// What people met.
struct Story {
    asked: Vec<Asked>,
    heard: Vec<HeardEvents>,
    steps: Vec<RolloutStep>,
}

impl Story {
    /// Every request was answered as it should be, and what was told is in the books.
    async fn assert_nobody_noticed(&self, sale: &OpenSale) {
        let failures: Vec<_> = self.asked.iter().filter(|asked| asked.failure.is_some()).collect();
        let told = self.asked.iter().filter(|asked| asked.is_a_purchase()).count();
        let (meanwhile, quiet): (Vec<&Asked>, Vec<&Asked>) =
            self.asked.iter().partition(|asked| self.steps.iter().any(|step| overlap(step, asked)));
        let streams: usize = self.heard.iter().map(|heard| heard.streams).sum();
        println!(
            "{} requests, {told} of them purchases, {} failed; p99 {:.1?} and longest {:.1?} during the steps, {:.1?} and \
             {:.1?} in between; {} listeners, {streams} streams",
            self.asked.len(),
            failures.len(),
            p99(&meanwhile),
            longest(&meanwhile),
            p99(&quiet),
            longest(&quiet),
            self.heard.len(),
        );
        for failure in failures.iter().take(10) {
            println!("  {failure:?}");
        }
        assert!(failures.is_empty(), "{} requests failed", failures.len());
        let cut: Vec<&String> = self.heard.iter().flat_map(|heard| &heard.failures).collect();
        assert!(cut.is_empty(), "{} listeners met failures: {:?}", cut.len(), cut.first());
        let silence = self.heard.iter().map(|heard| heard.longest_silence).max().unwrap();
        assert!(silence < SILENCE_MAX, "a listener heard nothing for {silence:?}");

        let audit = sale.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "the audit found {:?}", audit.violations);
        assert_eq!(audit.claims, told as u64, "claims in the books and purchases that were told");
    }
}

/// Whether the request was under way during the step.
fn overlap(step: &RolloutStep, asked: &Asked) -> bool {
    asked.sent < step.started_at + step.duration && asked.sent + asked.latency > step.started_at
}

fn p99(asked: &[&Asked]) -> Duration {
    let mut latencies: Vec<Duration> = asked.iter().map(|asked| asked.latency).collect();
    latencies.sort_unstable();
    latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default()
}

fn longest(asked: &[&Asked]) -> Duration {
    asked.iter().map(|asked| asked.latency).max().unwrap_or_default()
}
