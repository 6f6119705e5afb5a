//! Clients that send requests and never read the answers.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::until;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::fixture::Target;

/// As many as the node accepts.
const CONNECTIONS: usize = 300;
/// The largest file that a node serves, so often that the answers exceed all socket buffers.
const REQUEST: &str =
    "GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n";
const REQUESTS: usize = 30;
/// Connections of the honest buyers in this test, and some of nginx.
const HONEST_CONNECTIONS: f64 = 10.0;

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_do_not_hold_a_node() {
    let places = CONNECTIONS.to_string();
    let target = Target::with_node_environment(&[
        ("CONNECTIONS_MAX", &places),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("RATE_LIMIT_MAX", "0"),
        ("RATE_LIMIT_EXEMPT", ""),
    ])
    .await;
    let node = target.stack.nodes()[0].url().trim_start_matches("http://").parse().unwrap();

    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS {
        slow.push(request_without_reading(node).await);
    }

    target.assert_healthy("300 connections of one address that never read").await;
    let ends = async || open_connections(&target).await <= HONEST_CONNECTIONS;
    until("the node closes connections that do not read", Duration::from_secs(40), ends).await.unwrap();
    drop(slow);
    target.assert_audit_ok().await;
}

/// Connects from an address that is no trusted proxy.
async fn request_without_reading(node: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    let mut connection = socket.connect(node).await.unwrap();
    // A node that refuses the connection closes it.
    connection.write_all(REQUEST.repeat(REQUESTS).as_bytes()).await.unwrap_or_default();
    connection
}

async fn open_connections(target: &Target) -> f64 {
    let metrics =
        target.get(&format!("{}/metrics", target.stack.nodes()[0].ops_url())).await.text().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("flashsale_connections "));
    value.unwrap().parse().unwrap()
}
