//! Attacks by number, and the crowd that only listens.

use std::time::{Duration, Instant};

use testkit::procfs::resident_bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::stage::{HEAD_LIMIT, Target};

/// Each is two descriptors here, and one in the node.
const CROWD: usize = 10_000;
/// How many connect at a time: no more than the kernel keeps for a node that is busy.
const AT_A_TIME: usize = 256;

/// Connects so often, and sends each connection the same.
async fn crowd(door: &str, request: &'static [u8]) -> Vec<TcpStream> {
    let addr = door.trim_start_matches("http://").to_owned();
    let mut streams = Vec::with_capacity(CROWD);
    while streams.len() < CROWD {
        let mut connecting = JoinSet::new();
        for _ in 0..AT_A_TIME.min(CROWD - streams.len()) {
            let addr = addr.clone();
            connecting.spawn(async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
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
async fn ten_thousand_connections_that_never_ask_keep_nobody_from_buying() {
    service::files::raise_open_files_limit();
    let target = Target::open().await;
    let door = target.doors()[1].clone();
    let before = megabytes(&target);

    let began = Instant::now();
    let idle = crowd(&door, b"G").await;
    println!(
        "{CROWD} idle connections in {:?}: {before} MB before, {} MB with them",
        began.elapsed(),
        megabytes(&target)
    );
    target.is_healthy("ten thousand connections").await;

    let began = Instant::now();
    for mut stream in idle {
        let end = timeout(HEAD_LIMIT + Duration::from_secs(10), stream.read(&mut [0; 1])).await;
        assert_eq!(end.expect("the node closes who never asks").unwrap_or_default(), 0);
    }
    println!("all of them were closed {:?} later", began.elapsed());
    target.is_healthy("ten thousand connections that were closed").await;
    target.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_listeners_hear_of_a_purchase_and_are_sent_elsewhere_at_the_end() {
    service::files::raise_open_files_limit();
    let target = Target::open().await;
    let door = target.doors()[1].clone();
    let before = megabytes(&target);

    let mut listeners = crowd(&door, b"GET /api/sale/events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    hear(&mut listeners, "\"remainingStock\":1000").await;
    println!("{CROWD} listeners: {before} MB before, {} MB with them", megabytes(&target));
    let began = Instant::now();
    target.is_healthy("ten thousand listeners").await;
    hear(&mut listeners, "\"remainingStock\":998").await;
    println!("all of them heard of two purchases within {:?}; {} MB", began.elapsed(), megabytes(&target));

    let began = Instant::now();
    target.stack.nodes()[0].process().term();
    for listener in &mut listeners {
        let mut rest = Vec::new();
        timeout(Duration::from_secs(10), listener.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.ends_with(b"0\r\n\r\n"), "a stream was cut off instead of ended");
    }
    println!("all streams ended within {:?}", began.elapsed());
}

/// Waits until every one of them has heard this.
async fn hear(listeners: &mut [TcpStream], what: &str) {
    for listener in listeners {
        let mut heard = String::new();
        let mut buffer = [0; 2048];
        while !heard.contains(what) {
            let count = timeout(Duration::from_secs(10), listener.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(count, 0, "a listener was sent away: {heard}");
            heard.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    }
}
