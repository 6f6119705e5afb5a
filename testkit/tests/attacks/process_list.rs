//! A list of running processes that a program with the Redis user of a node fills with nodes that do not exist. Nodes
//! share the rate limits by this list.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rediscluster::{Cluster, ConnectOptions};
use reqwest::Client;
use serde_json::json;
use stock::functions::LIBRARY;
use stock::presence::{Presence, ProcessInfo, ProcessKind};
use testkit::{Stack, StackOptions, User, until};
use tokio::task::JoinSet;

use crate::fixture::STACK_LOCK;

const INVENTED: usize = 253;

#[tokio::test(flavor = "multi_thread")]
async fn invented_nodes_on_the_process_list_limit_no_honest_crowd() {
    let _stack_lock = STACK_LOCK.lock().await;
    let environment = vec![("RATE_LIMIT_EXEMPT".into(), "192.0.2.1".into())];
    let options = StackOptions { node_environment: environment, ..StackOptions::default() };
    let stack = Stack::start(options, |_| ()).await.unwrap();
    crowd(&stack, "honest").await;
    let seeds = stack.redis().logins(User::Admin).unwrap();
    let cluster = Cluster::connect(ConnectOptions::new(seeds), &LIBRARY).await.unwrap();
    let attack = tokio::spawn(async move {
        loop {
            for number in 0..INVENTED {
                let name = format!("invented:1/{number:08x}");
                let node = ProcessInfo::of_this_release(name, ProcessKind::Node);
                cluster.poll(Presence::report(&node, Some(Duration::ZERO))).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let nodes = async || {
        for node in stack.nodes() {
            let metrics = reqwest::get(format!("{}/metrics", node.ops_url())).await.unwrap().text().await.unwrap();
            if !metrics.contains("flashsale_limit_nodes 255") { return false; }
        }
        true
    };
    until("nodes count the invented ones", Duration::from_secs(20), nodes).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    crowd(&stack, "attacked").await;
    attack.abort();
}

async fn crowd(stack: &Stack, name: &str) {
    let before = stack.redis().command_stats("fcall_ro").await.unwrap();
    let began = Instant::now();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut crowd = JoinSet::new();
    let first = NEXT.fetch_add(500, Ordering::Relaxed);
    for worker in 0..50 {
        let (client, url) = (Client::new(), format!("{}/api/sale/purchase", stack.url()));
        crowd.spawn(async move {
            let mut limited = 0;
            let mut slowest = Duration::ZERO;
            for n in 0..10 {
                let user = format!("buyer-{}", first + worker * 10 + n);
                let began = Instant::now();
                let answer = client.post(&url).json(&json!({ "userId": user })).send().await.unwrap();
                slowest = slowest.max(began.elapsed());
                match answer.status().as_u16() {
                    200 | 409 => {}
                    429 => limited += 1,
                    status => panic!("{status}"),
                }
            }
            (limited, slowest)
        });
    }
    let results = crowd.join_all().await;
    let limited: usize = results.iter().map(|r| r.0).sum();
    let slowest = results.iter().map(|r| r.1).max().unwrap();
    let after = stack.redis().command_stats("fcall_ro").await.unwrap();
    println!("{name}: {limited} of 500 limited in {:?}; slowest {slowest:?}; {} fcall_ro", began.elapsed(), after.calls - before.calls);
}
