//! Attacks with malformed HTTP requests.

use std::fs;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::fixture::{HEAD_LIMIT, Target, assert_problem, connect, send_raw, statuses};

#[tokio::test(flavor = "multi_thread")]
async fn smuggled_request_buys_nothing() {
    let target = Target::open().await;
    let body = json!({ "userId": "smuggled" }).to_string();
    let outer = "POST /api/sale/purchase HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let smuggled = format!("{outer}content-length: {}\r\n\r\n{body}", body.len());
    let chunks = format!("0\r\n\r\n{smuggled}");
    let (whole, chunked) = (chunks.len(), "transfer-encoding: chunked\r\n");
    for (attack, request) in [
        ("CL.TE", format!("{outer}content-length: {whole}\r\n{chunked}\r\n{chunks}")),
        ("TE.CL", format!("{outer}{chunked}content-length: 5\r\n\r\n{chunks}")),
        ("TE.TE", format!("{outer}{chunked}transfer-encoding: identity\r\n\r\n{chunks}")),
        ("obscure TE", format!("{outer}transfer-encoding: xchunked\r\ncontent-length: 4\r\n\r\n{chunks}")),
        ("CL.CL", format!("{outer}content-length: 0\r\ncontent-length: {whole}\r\n\r\n{chunks}")),
        ("signed CL", format!("{outer}content-length: +0\r\n\r\n{smuggled}")),
        ("space before the colon", format!("{outer}content-length : 0\r\n\r\n{smuggled}")),
    ] {
        for base_url in target.base_urls() {
            let answer = send_raw(&base_url, request.as_bytes()).await;
            let statuses = statuses(&answer);
            println!("{attack:24} at {base_url}: {statuses:?}");
            assert!(statuses.iter().all(|status| is_refusal(status)), "{attack} at {base_url}: {answer}");
            assert!(!target.has_bought("smuggled").await, "{attack} at {base_url}");
        }
        target.assert_healthy(attack).await;
    }
    target.assert_audit_ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let target = Target::open().await;
    let (status, long) = ("GET /api/sale/status HTTP/1.1\r\nhost: a\r\n", "a".repeat(100_000));
    for (attack, request) in [
        ("a bare CR in a header", format!("{status}x-correlation-id: a\rset-cookie: b\r\n\r\n")),
        ("a NUL in a header", format!("{status}x-correlation-id: a\0b\r\n\r\n")),
        ("a folded header", format!("{status}x: a\r\n b\r\n\r\n")),
        ("an oversized head", format!("{status}x: {long}\r\n\r\n")),
        ("an oversized path", format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("a thousand headers", format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(1_000))),
        ("another protocol", "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03".to_owned()),
        ("unnegotiated HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ] {
        for base_url in target.base_urls() {
            let answer = send_raw(&base_url, request.as_bytes()).await;
            let statuses = statuses(&answer);
            println!("{attack:24} at {base_url}: {statuses:?}");
            // nginx accepts some unusual requests and forwards them without the unusual part. The answer must then
            // contain nothing of it.
            let is_refused = statuses.iter().all(|status| is_refusal(status));
            let is_harmless = is_refused || !answer.to_lowercase().contains("set-cookie");
            assert!(is_harmless, "{attack} at {base_url}: {answer}");
        }
        target.assert_healthy(attack).await;
    }
    target.assert_audit_ok().await;
}

/// Malformed requests to each program, and the bytes that they may add to its log: ten for each request.
const FLOOD: usize = 10_000;
const FLOOD_BYTES_MAX: u64 = 100_000;
const FLOOD_CONNECTIONS: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_malformed_requests_writes_little() {
    let target = Target::open().await;
    let post = format!("POST /api/sale/purchase?{} HTTP/1.1\r\nhost: a\r\n", "a".repeat(1_500));
    let json = format!("{post}content-type: application/json\r\nconnection: close\r\n");
    let malformed = [
        format!("{json}content-length: 20000\r\n\r\n{}", " ".repeat(20_000)),
        format!("{json}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{json}content-length: 3\r\n\r\n{{zz"),
        format!("{post}content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n"),
        "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n".to_owned(),
        "GET /%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\na\0: b\r\n\r\n".to_owned(),
    ];
    let (nginx, coordinator) = (target.stack.nginx().process(), target.stack.coordinators()[0].clone());
    let [edge, node] = target.base_urls();
    let node_process = target.stack.nodes()[0].process();
    for (process, base_url) in
        [(&nginx, edge), (&node_process, node), (&coordinator.process(), coordinator.url().to_owned())]
    {
        let log_bytes = || fs::metadata(process.log()).unwrap().len();
        let before = log_bytes();

        let requests = malformed.iter().cycle().take(FLOOD);
        let sent = requests.map(async |request| {
            let mut connection = connect(&base_url).await;
            connection.write_all(request.as_bytes()).await.unwrap_or_default();
            timeout(Duration::from_secs(10), connection.read(&mut [0; 512])).await.is_ok()
        });
        let answered = stream::iter(sent).buffer_unordered(FLOOD_CONNECTIONS);
        let ended = answered.filter(|is_ended| std::future::ready(*is_ended)).count().await;

        let written = log_bytes() - before;
        println!("{}: {FLOOD} malformed requests, {ended} ended, {written} bytes of log", process.name());
        assert_eq!(ended, FLOOD, "{}", process.name());
        assert!(written <= FLOOD_BYTES_MAX, "{}: {written} bytes", process.name());
    }
    let samples = fs::read_to_string(nginx.log()).unwrap().matches("refused: 4").count();
    assert!(samples > 0, "the log of nginx shows that requests are refused");
    target.assert_healthy("malformed requests").await;
    target.assert_audit_ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_or_slow_body_is_refused() {
    let target = Target::open().await;
    for base_url in target.base_urls() {
        let url = format!("{base_url}/api/sale/purchase");
        let long =
            target.client.post(&url).header("content-type", "application/json").body(" ".repeat(1 << 20));
        match long.send().await {
            Ok(answer) => assert_problem(answer, 413, "a long body").await,
            // The connection may be closed before the whole body was sent.
            Err(error) => println!("a long body at {base_url}: {error}"),
        }
        target.assert_healthy("a long body").await;
    }

    let mut slow = connect(&target.base_urls()[1]).await;
    let head = "POST /api/sale/purchase HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    let began = Instant::now();
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let answered = timeout(Duration::from_secs(8), slow.read_exact(&mut answer)).await;
    assert!(answered.is_ok_and(|read| read.is_ok()), "a slow body is answered in time");
    println!("a slow body was refused after {:?}: {}", began.elapsed(), String::from_utf8_lossy(&answer));
    assert_eq!(&answer, b"HTTP/1.1 408");
    target.assert_healthy("a slow body").await;
    target.assert_audit_ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_request_head_is_timed_out() {
    let target = Target::open().await;
    let mut slow_connections = Vec::new();
    for _ in 0..200 {
        slow_connections.push(connect(&target.base_urls()[1]).await);
    }
    let began = Instant::now();
    let mut open = slow_connections.len();
    for letter in b"GET /api/sale/status HTTP/1.1\r\nhost: a\r\n".iter().cycle() {
        if open == 0 || began.elapsed() > 2 * HEAD_LIMIT {
            break;
        }
        open = 0;
        for connection in &mut slow_connections {
            let mut byte = [0; 1];
            let is_open = !matches!(connection.try_read(&mut byte), Ok(0))
                && connection.write_all(&[*letter]).await.is_ok();
            open += usize::from(is_open);
        }
        target.assert_healthy("a drop").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("200 dripping heads: {open} open after {:?}", began.elapsed());
    assert_eq!(open, 0, "the node holds connections for heads that never end");
    target.assert_audit_ok().await;
}

/// Returns true for a client error, and for 501, which nginx uses for an unknown transfer encoding.
fn is_refusal(status: &str) -> bool {
    status.starts_with('4') || status == "501"
}
