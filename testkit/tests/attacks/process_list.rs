//! A list of running processes that a program with the Redis user of a node fills with nodes that do not exist. Nodes
//! share the rate limits by this list.

use std::time::{Duration, Instant};

use rediscluster::{Cluster, ConnectOptions};
use reqwest::Client;
use serde_json::json;
use stock::functions::LIBRARY;
use stock::presence::{Presence, ProcessInfo, ProcessKind};
use testkit::{Stack, StackOptions, User, until};
use tokio::task::JoinSet;

use crate::fixture::STACK_LOCK;

/// As many as fit on the list beside the two nodes and the coordinator.
const INVENTED: usize = 253;
/// Honest buyers behind one address, which may buy 600 times in a minute.
const CROWD: usize = 400;
/// A buyer who is refused tries again within this time.
const TRYING: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn invented_nodes_on_the_process_list_lock_no_crowd_out() {
    // Given two nodes that count many more.
    let _stack_lock = STACK_LOCK.lock().await;
    let environment = vec![("RATE_LIMIT_EXEMPT".into(), "192.0.2.1".into())];
    let options = StackOptions { node_environment: environment, ..StackOptions::default() };
    let stack = Stack::start(options, |_| ()).await.unwrap();
    let seeds = stack.redis().logins(User::Admin).unwrap();
    let cluster = Cluster::connect(ConnectOptions::new(seeds), &LIBRARY).await.unwrap();
    let mut attack = JoinSet::new();
    attack.spawn(async move {
        loop {
            for number in 0..INVENTED {
                let name = format!("invented:1/{number:08x}");
                let node = ProcessInfo::of_this_release(name, ProcessKind::Node);
                // A report that got lost is repeated.
                cluster
                    .poll(Presence::report(&node, Some(Duration::ZERO)))
                    .await
                    .map(drop)
                    .unwrap_or_default();
            }
        }
    });
    until("the nodes count the invented ones", TRYING, async || counts_invented_nodes(&stack).await)
        .await
        .unwrap();

    // When a crowd behind one address buys at the same moment, then each of its members gets an answer.
    let began = Instant::now();
    let client = Client::new();
    let buyers: JoinSet<u32> =
        (0..CROWD).map(|number| buy(client.clone(), stack.url(), format!("buyer-{number}"))).collect();
    let refusals: u32 = buyers.join_all().await.into_iter().sum();
    println!("{CROWD} buyers have bought after {:.1?} and {refusals} refusals", began.elapsed());
}

async fn counts_invented_nodes(stack: &Stack) -> bool {
    let expected = format!("flashsale_limit_nodes {}", INVENTED + stack.nodes().len());
    for node in stack.nodes() {
        let metrics = reqwest::get(format!("{}/metrics", node.ops_url())).await.unwrap();
        if !metrics.text().await.unwrap().lines().any(|line| line == expected) {
            return false;
        }
    }
    true
}

/// Buys, and tries again at once while the address is limited. Returns the number of refusals.
async fn buy(client: Client, base_url: String, user: String) -> u32 {
    let (url, began) = (format!("{base_url}/api/sale/purchase"), Instant::now());
    for refusals in 0.. {
        let answer = client.post(&url).json(&json!({ "userId": user })).send().await.unwrap();
        match answer.status().as_u16() {
            200 | 409 => return refusals,
            status => assert!(matches!(status, 429 | 503), "{status}"),
        }
        assert!(began.elapsed() < TRYING, "{user} was refused {refusals} times");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    unreachable!("the attempts are not counted to the end")
}
