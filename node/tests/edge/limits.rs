//! Rate limits of one client, on one node and on several together.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{Request, request};
use futures::StreamExt as _;
use redis::Client;
use serde_json::json;
use service::serve::Peer;
use tokio::task::JoinSet;

use crate::fixture::{Answer, TestNode, post_json, shared_redis};
use crate::identity::{bearer, node_with_flags};

/// Twice the time in which 240 requests are allowed.
const SLOW: Duration = Duration::from_secs(8);
const STATUS: &str = "/api/sale/status";

/// Starts nodes behind a proxy that share their limits. Each address has 200 requests in 20 seconds.
async fn nodes(count: usize) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let limit = ["--rate-limit-max", "200", "--rate-limit-window", "20s"];
        let node = TestNode::with_flags(&[&limit[..], &["--trusted-proxies", "127.0.0.1"]].concat()).await;
        node.share_limits(count);
        nodes.push(node);
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
    assert_eq!(refused.headers["ratelimit-limit"], "200");
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
    assert_eq!(refused.headers["ratelimit-reset"], refused.headers["retry-after"]);
    assert_eq!(refused.headers["ratelimit-policy"], "200;w=20");
    assert_eq!(ask(&nodes[0], &unused_address()).await.status, 200);
}

#[tokio::test]
async fn refused_clients_of_an_address_are_told_different_times() {
    // Given an address whose permits are used up. One comes back in 0.1 seconds.
    let nodes = nodes(1).await;
    let limited_address = unused_address();
    admitted(&nodes, &limited_address, 200).await;

    // When 100 of its clients are refused.
    let mut waits = Vec::new();
    while waits.len() < 100 {
        let answer = ask(&nodes[0], &limited_address).await;
        waits.extend(
            answer.headers.get("retry-after").map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap()),
        );
    }

    // Then they are sent to different times within the ten seconds that their queue takes.
    let latest = *waits.iter().max().unwrap();
    assert!((4..=11).contains(&latest), "{waits:?}");
    assert!(waits.iter().filter(|wait| **wait <= latest / 2).count() >= 20, "{waits:?}");
}

#[tokio::test]
async fn address_limit_holds_across_nodes() {
    for count in [1, 2, 4] {
        let (nodes, limited_address) = (nodes(count).await, unused_address());
        assert_limit_holds(&format!("{count} nodes"), &nodes, &limited_address).await;
    }
}

#[tokio::test]
async fn address_at_one_of_four_nodes_gets_its_whole_limit() {
    let (nodes, limited_address) = (nodes(4).await, unused_address());
    assert_limit_holds("one of 4 nodes", &nodes[..1], &limited_address).await;
}

/// Sends requests to the nodes in turn, and asserts that as many are admitted as the limit allows.
async fn assert_limit_holds(what: &str, nodes: &[TestNode], address: &str) {
    let (began, mut admitted_in_all) = (Instant::now(), 0);
    // The burst of 200, and what comes back in four seconds. A limit that gives back too little ends the loop, too.
    while admitted_in_all < 240 && began.elapsed() < SLOW {
        admitted_in_all += admitted(nodes, address, 40).await;
    }
    let allowed = 200.0 + began.elapsed().as_secs_f64() * 10.0;
    let ratio = admitted_in_all as f64 / allowed;
    println!("{what}: {admitted_in_all} requests admitted where {allowed:.0} are allowed: {ratio:.3}");
    assert!((0.9..=1.1).contains(&ratio), "{what}: {admitted_in_all} of {allowed:.0} were admitted");
}

#[tokio::test]
async fn requests_below_the_limit_cost_no_call() {
    for count in [1, 2, 4] {
        let (nodes, limited_address) = (nodes(count).await, unused_address());
        let calls = CallCounter::start(&limited_address).await;
        assert_eq!(admitted(&nodes, &limited_address, 200).await, 200);
        assert_eq!(calls.count().await, 0, "{count} nodes");
    }
}

#[tokio::test]
async fn pages_that_follow_the_sale_leave_purchases_alone() {
    let node = TestNode::with_flags(&["--rate-limit-max", "5", "--rate-limit-window", "1h"]).await;
    let address = unused_address();
    let client = Peer(format!("{address}:1").parse().unwrap());
    let mut refused = 0;
    for path in [STATUS, "/api/csrf", "/api/status", "/api/sale/events"].repeat(5) {
        refused += usize::from(node.respond(Request::get(path).extension(client)).await.status() == 429);
    }
    assert_eq!(refused, 15);
    for user in ["ann", "bob"] {
        assert_eq!(buy(&node, &address, "", user).await.status, 200);
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

/// Buys for a user from this address. An empty `authorization` is not sent.
async fn buy(node: &TestNode, address: &str, authorization: &str, user: &str) -> Answer {
    buy_at(node, "/api/sale/purchase", address, authorization, user).await
}

async fn buy_at(node: &TestNode, path: &str, address: &str, authorization: &str, user: &str) -> Answer {
    let request = node.with_csrf_token(post_json(path)).await;
    let request = request.extension(Peer(format!("{address}:1").parse().unwrap()));
    let request =
        if authorization.is_empty() { request } else { request.header(AUTHORIZATION, authorization) };
    node.send(request, json!({ "userId": user }).to_string()).await
}

#[tokio::test]
async fn unverified_user_is_limited_across_families() {
    let node = TestNode::with_flags(&["--rate-limit-user-max", "3", "--rate-limit-window", "1h"]).await;
    let address = unused_address();
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(buy(&node, &address, "", "ann").await);
    }
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 409, 409, 429, 429]);
    answers[4].assert_problem(429);
    assert_eq!(answers[4].headers["retry-after"], "1200");
    assert_eq!(answers[4].headers["ratelimit-limit"], "3");
    buy_at(&node, "/api/purchase", &address, "", "ann").await.assert_problem(429);
    assert_eq!(buy(&node, &address, "", "bob").await.status, 200);
    assert_eq!(node.get("/api/sale/purchase/ann").await.body["hasPurchased"], json!(true));
}

#[tokio::test]
async fn attempts_in_a_victims_name_do_not_lock_the_victim_out() {
    let node = TestNode::with_flags(&["--rate-limit-user-max", "3", "--rate-limit-window", "1h"]).await;
    let [attacker, victim] = [unused_address(), unused_address()];
    for _ in 0..60 {
        buy(&node, &attacker, "", "ann").await;
    }
    assert_eq!(buy(&node, &attacker, "", "ann").await.status, 429);
    assert_eq!(buy(&node, &victim, "", "ann").await.status, 409, "the answer is the order");
}

#[tokio::test]
async fn verified_user_has_one_limit_at_all_addresses() {
    let node = node_with_flags(&["--rate-limit-user-max", "3", "--rate-limit-window", "1h"]).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(buy(&node, &unused_address(), &bearer("ann"), "ann").await.status);
    }
    assert_eq!(statuses, [200, 409, 409, 429, 429]);
    assert_eq!(buy(&node, &unused_address(), &bearer("bob"), "bob").await.status, 200);
}

#[tokio::test]
async fn bots_do_not_use_up_the_limit_of_their_address() {
    // Given an address with twenty purchases in an hour.
    let limits = ["--rate-limit-max", "20", "--rate-limit-user-max", "3", "--rate-limit-window", "1h"];
    let (node, address) = (node_with_flags(&limits).await, unused_address());

    // When a bot with an account, and one without, send hundreds of purchases and lookups.
    for _ in 0..100 {
        buy(&node, &address, &bearer("bot"), "bot").await;
        buy(&node, &address, "", "bot").await;
        let client = Peer(format!("{address}:1").parse().unwrap());
        let lookup = Request::get("/api/sale/purchase/bot").extension(client);
        node.send(lookup.header(AUTHORIZATION, bearer("bot")), "").await;
    }

    // Then the other users behind the address can buy, until the flood guard stops a flood of accounts.
    for user in ["ann", "bob"] {
        assert_eq!(buy(&node, &address, &bearer(user), user).await.status, 200);
    }
    let mut flood = Vec::new();
    for number in 0..20 {
        let user = format!("account-{number}");
        flood.push(buy(&node, &address, &bearer(&user), &user).await.status);
    }
    assert_eq!(flood.iter().filter(|status| **status == 429).count(), 8, "{flood:?}");
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
            let (seen, address) = (Arc::clone(&counter.seen), format!(" {address}\""));
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
