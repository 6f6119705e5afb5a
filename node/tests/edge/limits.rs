//! Rate limits of one client, on one node and on several together.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Request, request};
use futures::StreamExt as _;
use redis::Client;
use serde_json::json;
use service::serve::Peer;
use tokio::task::JoinSet;

use crate::fixture::{Answer, TestNode, shared_redis};

/// Twice the time in which 240 requests are allowed.
const SLOW: Duration = Duration::from_secs(8);
const STATUS: &str = "/api/sale/status";

/// Starts nodes behind a proxy. Each address has 200 requests in 20 seconds.
async fn nodes(count: usize) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let limit = ["--rate-limit-max", "200", "--rate-limit-window", "20s"];
        nodes.push(TestNode::with_flags(&[&limit[..], &["--trusted-proxies", "127.0.0.1"]].concat()).await);
    }
    nodes
}

/// Returns an address that no other test uses.
fn unused_address() -> String {
    static ADDRESSES: AtomicU32 = AtomicU32::new(0);
    let run = (std::process::id() << 12) & 0x00FF_FFFF;
    Ipv4Addr::from_bits(0x0B00_0000 + run + ADDRESSES.fetch_add(1, Ordering::Relaxed)).to_string()
}

fn from(address: &str) -> request::Builder {
    let proxy = Peer("127.0.0.1:1".parse().unwrap());
    Request::get(STATUS).extension(proxy).header("x-forwarded-for", address)
}

async fn ask(node: &TestNode, address: &str) -> Answer {
    node.send(from(address), "").await
}

/// Sends requests to the nodes in turn, and returns the number that was admitted.
async fn admitted(nodes: &[TestNode], address: &str, requests: usize) -> usize {
    let mut admitted = 0;
    for node in nodes.iter().cycle().take(requests) {
        admitted += usize::from(ask(node, address).await.status == 200);
    }
    admitted
}

#[tokio::test]
async fn only_the_limited_address_is_refused() {
    let nodes = nodes(1).await;
    let limited_address = unused_address();
    admitted(&nodes, &limited_address, 250).await;

    let refused = ask(&nodes[0], &limited_address).await;

    refused.assert_problem(429);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["ratelimit-limit"], "200");
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
    assert_eq!(refused.headers["ratelimit-reset"], "1");
    assert_eq!(refused.headers["ratelimit-policy"], "200;w=20");
    assert_eq!(ask(&nodes[0], &unused_address()).await.status, 200);
}

#[tokio::test]
async fn address_limit_holds_across_nodes() {
    for count in [1, 2, 4] {
        let (nodes, limited_address) = (nodes(count).await, unused_address());
        let (began, mut admitted_in_all) = (Instant::now(), 0);
        // The burst of 200, and what comes back in four seconds. A limit that gives back too little ends the loop, too.
        while admitted_in_all < 240 && began.elapsed() < SLOW {
            admitted_in_all += admitted(&nodes, &limited_address, 40).await;
        }
        let allowed = 200.0 + began.elapsed().as_secs_f64() * 10.0;
        let ratio = admitted_in_all as f64 / allowed;
        println!(
            "{count} nodes: {admitted_in_all} requests admitted where {allowed:.0} are allowed: {ratio:.3}"
        );
        assert!((0.9..=1.1).contains(&ratio), "{count} nodes admitted {admitted_in_all} of {allowed:.0}");
    }
}

#[tokio::test]
async fn ten_requests_cost_at_most_one_call() {
    for count in [1, 2, 4] {
        let (nodes, limited_address) = (nodes(count).await, unused_address());
        let calls = CallCounter::start(&limited_address).await;
        assert_eq!(admitted(&nodes, &limited_address, 180).await, 180);
        let calls = calls.count().await;
        println!("{count} nodes: {calls} calls for 180 requests");
        assert!((1..=18).contains(&calls), "{count} nodes made {calls} calls for 180 requests");
    }
}

#[tokio::test]
async fn direct_client_cannot_choose_its_address() {
    let node = TestNode::with_flags(&["--rate-limit-max", "40", "--rate-limit-window", "1h"]).await;
    let client = Peer(format!("{}:1", unused_address()).parse().unwrap());
    let mut refused = 0;
    for _ in 0..60 {
        let spoofed = Request::get(STATUS).extension(client).header("x-forwarded-for", unused_address());
        refused += usize::from(node.send(spoofed, "").await.status == 429);
    }
    assert_eq!(refused, 20, "a different X-Forwarded-For each time makes no difference");
}

#[tokio::test]
async fn exempt_networks_are_not_limited() {
    let node = TestNode::with_flags(&["--rate-limit-max", "5", "--rate-limit-exempt", "192.0.2.0/24"]).await;
    for _ in 0..50 {
        let tester = Peer("192.0.2.7:1".parse().unwrap());
        assert_eq!(node.send(Request::get(STATUS).extension(tester), "").await.status, 200);
    }
}

#[tokio::test]
async fn user_attempts_are_limited_across_families() {
    let node = TestNode::with_flags(&["--rate-limit-user-max", "3", "--rate-limit-window", "1h"]).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(node.buy("/api/sale/purchase", "ann").await);
    }
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 409, 409, 429, 429]);
    answers[4].assert_problem(429);
    assert_eq!(answers[4].headers["retry-after"], "1200");
    assert_eq!(answers[4].headers["ratelimit-limit"], "3");
    node.buy("/api/purchase", "ann").await.assert_problem(429);
    assert_eq!(node.buy("/api/sale/purchase", "bob").await.status, 200);
    assert_eq!(node.get("/api/sale/purchase/ann").await.body["hasPurchased"], json!(true));
}

/// Counts the calls to all primaries that name an address.
struct CallCounter {
    seen: Arc<AtomicU32>,
    watching: JoinSet<()>,
    clients: Vec<Client>,
}

/// A command with this text ends the count of a primary, which runs commands in order.
const LAST_COMMAND: &str = "all calls have been counted";

impl CallCounter {
    async fn start(address: &str) -> Self {
        let mut counter = Self { seen: Arc::default(), watching: JoinSet::new(), clients: Vec::new() };
        for seed in shared_redis().await.seeds().split(',') {
            let client = Client::open(seed).unwrap();
            let monitor = client.get_async_monitor().await.unwrap();
            let (seen, address) = (Arc::clone(&counter.seen), format!("\"{address}\""));
            counter.watching.spawn(async move {
                let mut lines = monitor.into_on_message::<String>();
                while let Some(line) = lines.next().await
                    && !line.contains(LAST_COMMAND)
                {
                    seen.fetch_add(u32::from(line.contains(&address)), Ordering::Relaxed);
                }
            });
            counter.clients.push(client);
        }
        counter
    }

    /// Returns the number of calls, after waiting until all have been seen.
    async fn count(self) -> u32 {
        for client in &self.clients {
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            redis::cmd("ECHO").arg(LAST_COMMAND).exec_async(&mut connection).await.unwrap();
        }
        self.watching.join_all().await;
        self.seen.load(Ordering::Relaxed)
    }
}
