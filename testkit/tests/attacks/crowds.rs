//! Attacks with many connections, and a crowd that only listens to events.

use std::time::{Duration, Instant};

use testkit::procfs::resident_bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::{HEAD_LIMIT, Target, connect};

/// Each connection needs two descriptors in this process and one in the node.
const CONNECTIONS: usize = 10_000;
/// Number of concurrent connects. It does not exceed the backlog that the kernel keeps for a busy node.
const CONCURRENT_CONNECTS: usize = 256;

/// Opens [`CONNECTIONS`] connections and sends the same bytes on each.
async fn connect_many(base_url: &str, request: &'static [u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(CONNECTIONS);
    while streams.len() < CONNECTIONS {
        let mut connecting = JoinSet::new();
        for _ in 0..CONCURRENT_CONNECTS.min(CONNECTIONS - streams.len()) {
            let base_url = base_url.to_owned();
            connecting.spawn(async move {
                let mut stream = connect(&base_url).await;
                stream.write_all(request).await.unwrap();
                stream
            });
        }
        streams.extend(connecting.join_all().await);
    }
    streams
}

fn megabytes(target: &Target) -> u64 {
    resident_bytes(target.stack.nodes()[0].process().pid()).unwrap() / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_do_not_block_buyers() {
    service::files::raise_open_files_limit();
    let target = Target::open().await;
    let base_url = target.base_urls()[1].clone();
    let before = megabytes(&target);

    let began = Instant::now();
    let idle = connect_many(&base_url, b"G").await;
    let (took, with_them) = (began.elapsed(), megabytes(&target));
    println!("{CONNECTIONS} idle connections in {took:?}: {before} MB before, {with_them} MB with them");
    target.assert_healthy("ten thousand connections").await;

    let began = Instant::now();
    for mut stream in idle {
        let end = timeout(HEAD_LIMIT + Duration::from_secs(10), stream.read(&mut [0; 1])).await;
        assert_eq!(end.expect("the node closes idle connections").unwrap_or_default(), 0);
    }
    println!("all of them were closed {:?} later", began.elapsed());
    target.assert_healthy("ten thousand connections that were closed").await;
    target.assert_audit_ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_listeners_get_events_and_clean_end() {
    service::files::raise_open_files_limit();
    let target = Target::open().await;
    let base_url = target.base_urls()[1].clone();
    let before = megabytes(&target);

    let mut listeners = connect_many(&base_url, b"GET /api/sale/events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_for_event(&mut listeners, "\"remainingStock\":1000").await;
    println!("{CONNECTIONS} listeners: {before} MB before, {} MB with them", megabytes(&target));
    let began = Instant::now();
    target.assert_healthy("ten thousand listeners").await;
    wait_for_event(&mut listeners, "\"remainingStock\":998").await;
    println!("all of them received two purchases within {:?}; {} MB", began.elapsed(), megabytes(&target));

    let began = Instant::now();
    target.stack.nodes()[0].process().term();
    for listener in &mut listeners {
        let mut rest = Vec::new();
        timeout(Duration::from_secs(10), listener.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.ends_with(b"0\r\n\r\n"), "a stream broke instead of ending");
    }
    println!("all streams ended within {:?}", began.elapsed());
}

/// Waits until every listener has received `text`.
async fn wait_for_event(listeners: &mut [TcpStream], text: &str) {
    for listener in listeners {
        let mut received = String::new();
        let mut buffer = [0; 2048];
        while !received.contains(text) {
            let count = timeout(Duration::from_secs(10), listener.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(count, 0, "a listener's stream ended early: {received}");
            received.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    }
}
