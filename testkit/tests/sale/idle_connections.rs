//! Idle connections between nginx and a node. A node that closed them before nginx does would lose requests: those that
//! arrive at nginx before it knows of the end.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, Response, StatusCode};
use testkit::stack::Node;
use testkit::until;
use tokio::time::sleep;

use crate::fixture::{OpenSale, TIMEOUT, sale_options};

const REQUESTS: usize = 240;
/// `IDLE_TIMEOUT` of a node that closes connections before nginx, which keeps them for a minute.
const TOO_SHORT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn requests_after_idling_reach_node_with_longer_idle_timeout() {
    let sale = OpenSale::start_with_one_node(sale_options(1_000)).await;
    let (nodes, program) = (sale.stack.nodes(), testkit::binary("flashsale-node").unwrap());
    let setting = ("IDLE_TIMEOUT".to_owned(), format!("{}s", TOO_SHORT.as_secs()));
    let hasty = sale.stack.start_separate_node(&program, &[setting]).await.unwrap();

    let kept = lost_after_idling(&sale, &nodes[0], async || sleep(TOO_SHORT * 2).await).await;
    let closes_all = async || {
        let closed = async || open_connections(&hasty).await < 10;
        until("the node closes idle connections", TIMEOUT, closed).await.unwrap();
    };
    let closed = lost_after_idling(&sale, &hasty, closes_all).await;

    println!(
        "of {REQUESTS} requests after idling {kept} were lost; {closed} with an IDLE_TIMEOUT of {TOO_SHORT:?}"
    );
    assert_eq!(kept, 0);
    assert!(closed > 0, "the rule for IDLE_TIMEOUT is needed");
}

/// Counts the POST requests that nginx loses at this node, if they arrive while the connections become idle for long.
/// nginx does not repeat them, as most proxies do not repeat a POST. Only purchases are repeated.
async fn lost_after_idling(sale: &OpenSale, node: &Node, idling: impl AsyncFnOnce()) -> usize {
    let address: SocketAddr = node.url().trim_start_matches("http://").parse().unwrap();
    sale.stack.nginx().serve(vec![address]).await.unwrap();
    let (client, nginx) = (Client::new(), sale.stack.nginx().process());
    let url = format!("{}/api/sale/status", sale.stack.url());
    // A frozen node answers nothing, so nginx opens a connection for each request.
    node.process().freeze();
    let requests = (0..REQUESTS).map(|_| tokio::spawn(client.get(&url).send()));
    let requests: Vec<_> = requests.collect();
    sleep(Duration::from_millis(500)).await;
    node.process().thaw();
    for answer in join_all(requests).await {
        // The client reuses a connection whose answer was read.
        answer.unwrap().unwrap().bytes().await.unwrap();
    }

    nginx.freeze_group();
    let posts: Vec<_> = (0..REQUESTS).map(|_| tokio::spawn(client.post(&url).send())).collect();
    idling().await;
    nginx.thaw_group();

    let answers = join_all(posts).await.into_iter().map(|answer| answer.unwrap());
    // The node answers that the method is not allowed.
    let has_reached_node = |answer: &Response| answer.status() == StatusCode::METHOD_NOT_ALLOWED;
    answers.filter(|answer| !answer.as_ref().is_ok_and(has_reached_node)).count()
}

async fn open_connections(node: &Node) -> u32 {
    let metrics = reqwest::get(format!("{}/metrics", node.ops_url())).await.unwrap().text().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("flashsale_connections "));
    value.unwrap().parse().unwrap()
}
