//! The limit of a user over several nodes: spread over them by nginx, and at one of them.

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use testkit::{Stack, StackOptions, until};
use tokio::task::JoinSet;

use crate::fixture::{STACK_LOCK, accounts, token_of};

/// Attempts in [`WINDOW`].
const LIMIT: f64 = 120.0;
const WINDOW: Duration = Duration::from_mins(1);
/// Time for which a user tries: the burst, and what comes back.
const TRYING: Duration = Duration::from_secs(3);
/// Connections of a user. With several, nginx has to choose the node with the fewest.
const CONNECTIONS: usize = 4;
/// A node that died is forgotten after ten seconds.
const PRESENCE_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn user_limit_holds_on_one_two_and_four_nodes() {
    let _stack_lock = STACK_LOCK.lock().await;
    let mut environment = accounts();
    environment.push(("RATE_LIMIT_USER_MAX".into(), LIMIT.to_string()));
    let options = StackOptions { nodes: 1, node_environment: environment, ..StackOptions::default() };
    let stack = Stack::start(options, |_| ()).await.unwrap();

    for nodes in [1, 2, 4] {
        while stack.nodes().len() < nodes {
            stack.start_node().await.unwrap();
        }
        wait_until_shared_by(&stack, nodes).await;
        assert_limit_holds(&format!("spread over {nodes} nodes"), &stack.url()).await;
        assert_limit_holds(&format!("at one of {nodes} nodes"), stack.nodes()[0].url()).await;
    }

    // A node that dies takes its share along, and the others do not know yet.
    stack.nodes()[3].process().kill();
    assert_limit_holds("after the death of one of 4 nodes", &stack.url()).await;
    stack.start_node().await.unwrap();
    assert_limit_holds("after the start of another", &stack.url()).await;
}

/// Waits until all nodes know how many share the limits.
async fn wait_until_shared_by(stack: &Stack, nodes: usize) {
    let client = Client::new();
    let expected = format!("flashsale_limit_nodes {nodes}");
    let is_known = async || {
        for node in stack.nodes() {
            let metrics = client.get(format!("{}/metrics", node.ops_url())).send().await.unwrap();
            if !metrics.text().await.unwrap().lines().any(|line| line == expected) {
                return false;
            }
        }
        true
    };
    until("all nodes know each other", PRESENCE_LIMIT, is_known).await.unwrap();
}

/// Lets a new user try to buy without a pause, and asserts that as many attempts are admitted as the limit allows.
async fn assert_limit_holds(what: &str, base_url: &str) {
    let token = token_of(what);
    let began = Instant::now();
    let mut trying = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, token, url) = (Client::new(), token.clone(), format!("{base_url}/api/sale/purchase"));
        trying.spawn(async move {
            let mut admitted = 0;
            while began.elapsed() < TRYING {
                let answer = client.post(&url).bearer_auth(&token).json(&json!({})).send().await.unwrap();
                match answer.status().as_u16() {
                    200 | 409 => admitted += 1,
                    status => assert_eq!(status, 429),
                }
            }
            admitted
        });
    }
    let admitted: u32 = trying.join_all().await.into_iter().sum();
    let allowed = LIMIT * (1.0 + began.elapsed().as_secs_f64() / WINDOW.as_secs_f64());
    let ratio = f64::from(admitted) / allowed;
    println!("{what}: {admitted} attempts admitted where {allowed:.0} are allowed: {ratio:.3}");
    assert!((0.8..=1.2).contains(&ratio), "{what}: {admitted} of {allowed:.0} were admitted");
}
