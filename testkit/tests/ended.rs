//! Sales that have ended and are at rest: they cost nothing, and are still answered for.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

use std::time::Duration;

use buyers::BuyerClient;
use futures::future::join_all;
use redis::Cmd;
use reqwest::StatusCode;
use serde_json::json;
use testkit::procfs::cpu_time;
use testkit::{Buyers, PurchaseAttempt, Stack, StackOptions, until};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Time limit for any expected change, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of ended sales, unless the environment variable ENDED_SALES gives another one.
const ENDED: usize = 100;
/// How long the idle processes are observed.
const OBSERVED: Duration = Duration::from_secs(6);

/// The stories run one after the other: one measures what idle processes cost.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What idle processes cost.
#[derive(Debug)]
struct IdleCost {
    /// CPU of nodes, coordinators and Redis, in cores.
    cores: f64,
    /// Growth of all append-only files of primaries, in bytes per second.
    appended: f64,
    /// Size of the metrics of all nodes and coordinators.
    metrics_bytes: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_sales_cost_nothing_at_rest() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // Given an open sale, and the cost of its idle processes.
    let stack = start_stack().await;
    let without = idle_cost(&stack).await;
    let count = std::env::var("ENDED_SALES").map_or(ENDED, |count| count.parse().unwrap());

    // When many sales were held and have ended.
    let began = Instant::now();
    let ids: Vec<String> = (0..count).map(|n| format!("ended-{n:03}")).collect();
    for some in ids.chunks(8) {
        join_all(some.iter().map(|id| hold(&stack, id))).await;
    }
    let held_in = began.elapsed();
    let at_rest = async || metrics(&stack).await.iter().all(|text| !text.contains("sale=\"ended-"));
    let rest = until("the ended sales are at rest", TIMEOUT, at_rest).await;

    // Then the idle processes cost no more than before. (When ended sales were followed, 100 of them took 0.2 cores and
    // appended 200 kB/s.)
    let with = idle_cost(&stack).await;
    println!("{count} sales in {held_in:?}; without them {without:?}, with them {with:?}");
    rest.unwrap();
    assert!(with.cores < without.cores * 1.1 + 0.1, "{with:?}, {without:?} without ended sales");
    assert!(with.appended < without.appended * 1.2 + 20_000.0, "{with:?}, {without:?} without ended sales");
    assert!(
        with.metrics_bytes < without.metrics_bytes * 11 / 10,
        "{with:?}, {without:?} without ended sales"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sale_at_rest_is_answered_for_and_can_be_opened_again() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // Given a sale with purchases that is over by its window, and at rest.
    let stack = start_stack().await;
    let (admin, coordinators) = (stack.admin(), stack.coordinators());
    let (first, second) = (coordinators[0].url(), coordinators[1].url());
    let client = BuyerClient::new(TIMEOUT).of_sale("again");
    create(&stack, "again").await;
    let bought = buy(&stack, "again", "early", 7).await;
    assert_eq!(bought, 7);
    let end_at = async |coordinator: &str, ends_at: &str| {
        let extend = admin.post(coordinator, "sales/again/extend").json(&json!({ "endsAt": ends_at }));
        let answer = extend.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    };
    end_at(first, "1s").await;
    let at_rest = async || metrics(&stack).await.iter().all(|text| !text.contains("sale=\"again\""));
    until("the sale is at rest", TIMEOUT, at_rest).await.unwrap();

    // Then each node answers for it, also after a restart, and sells nothing.
    let nodes = stack.nodes();
    nodes[0].restart().await.unwrap();
    for node in &nodes {
        let status = client.sale_status(node.url()).await.unwrap();
        assert_eq!((status.status.as_str(), status.sold()), ("ended", 7), "{}", node.url());
    }
    assert_eq!(buy(&stack, "again", "late", 5).await, 0);
    assert!(stack.audit("again").await.unwrap().ok);
    until("the sale is at rest again", TIMEOUT, at_rest).await.unwrap();

    // When another coordinator opens it again, then every node knows within a second, and sells.
    end_at(second, "1h").await;
    for node in &nodes {
        let is_active = async || client.sale_status(node.url()).await.unwrap().status == "active";
        until("the sale is active", Duration::from_secs(1), is_active).await.unwrap();
    }
    assert_eq!(buy(&stack, "again", "returned", 93).await, 93);
    let audit = stack.audit("again").await.unwrap();
    assert!(audit.ok && audit.sold == 100 && audit.stock == 0, "{audit:?}");
}

/// Two nodes and two coordinators, and an open sale.
async fn start_stack() -> Stack {
    let options = StackOptions {
        coordinators: 2,
        coordinator_environment: vec![("REST_AFTER".into(), "2s".into())],
        ..StackOptions::default()
    };
    Stack::start(options, |_| ()).await.unwrap()
}

/// Creates a sale of 100 units that is open. Repeats the request on a busy machine, where it may get 503.
async fn create(stack: &Stack, id: &str) {
    let settings = json!({
        "id": id, "totalStock": 100, "shards": 12, "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        "productName": "Lamp", "productPrice": 5,
    });
    let (admin, coordinator) = (stack.admin(), stack.coordinators()[0].clone());
    let created = async || admin.create(coordinator.url(), &settings).await.is_ok();
    until("the sale is created", TIMEOUT, created).await.unwrap();
}

/// Creates a sale and ends it.
async fn hold(stack: &Stack, id: &str) {
    create(stack, id).await;
    let (admin, coordinator) = (stack.admin(), stack.coordinators()[0].clone());
    let ended = async || {
        let end = admin.post(coordinator.url(), &format!("sales/{id}/end"));
        end.send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    };
    until("the sale has ended", TIMEOUT, ended).await.unwrap();
}

/// Lets this many users buy until each has a definite answer. Returns the number of purchases.
async fn buy(stack: &Stack, sale: &str, prefix: &str, count: usize) -> usize {
    let attempt = |n| PurchaseAttempt { user: format!("{prefix}-{n}"), base_url: stack.url() };
    let attempts = (0..count).map(attempt).collect();
    let answers = Buyers::new(8).of_sale(sale).buy_persistently(attempts, TIMEOUT).await;
    answers.iter().filter(|answer| answer.is_purchased()).count()
}

async fn idle_cost(stack: &Stack) -> IdleCost {
    let before = (used_cpu(stack), appended(stack).await, Instant::now());
    sleep(OBSERVED).await;
    let seconds = before.2.elapsed().as_secs_f64();
    IdleCost {
        cores: (used_cpu(stack) - before.0).as_secs_f64() / seconds,
        appended: (appended(stack).await - before.1) as f64 / seconds,
        metrics_bytes: metrics(stack).await.iter().map(String::len).sum(),
    }
}

fn used_cpu(stack: &Stack) -> Duration {
    let (nodes, coordinators) = (stack.nodes(), stack.coordinators());
    let processes = nodes.iter().map(|node| node.process()).chain(coordinators.iter().map(|it| it.process()));
    let programs: Duration = processes.map(|process| cpu_time(process.pid()).unwrap()).sum();
    programs + stack.redis().cpu_time()
}

/// Bytes in the append-only files of all primaries.
async fn appended(stack: &Stack) -> u64 {
    let mut bytes = 0;
    for primary in stack.redis().primaries().await {
        let mut connection = stack.redis().connection(primary).await.unwrap();
        let info: String =
            Cmd::new().arg("INFO").arg("persistence").query_async(&mut connection).await.unwrap();
        let size = info.lines().find_map(|line| line.strip_prefix("aof_current_size:")).unwrap();
        bytes += size.trim().parse::<u64>().unwrap();
    }
    bytes
}

/// The metrics of all nodes and coordinators.
async fn metrics(stack: &Stack) -> Vec<String> {
    let nodes = stack.nodes().into_iter().map(|node| node.ops_url().to_owned());
    let coordinators = stack.coordinators().into_iter().map(|it| it.url().to_owned());
    let urls: Vec<String> = nodes.chain(coordinators).collect();
    let read =
        async |url: &String| reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    join_all(urls.iter().map(read)).await
}
