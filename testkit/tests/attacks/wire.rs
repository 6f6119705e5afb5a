//! Attacks on the way a request is written.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{HEAD_LIMIT, Target, is_problem, statuses, wire};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_smuggled_in_another_buys_nothing() {
    let target = Target::open().await;
    let body = json!({ "userId": "smuggled" }).to_string();
    let smuggled = format!(
        "POST /api/sale/purchase HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunks = format!("0\r\n\r\n{smuggled}");
    let whole = chunks.len();
    let outer = "POST /api/sale/purchase HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    for (attack, request) in [
        ("CL.TE", format!("{outer}content-length: {whole}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")),
        ("TE.CL", format!("{outer}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n{chunks}")),
        (
            "TE.TE",
            format!("{outer}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n{chunks}"),
        ),
        ("obscure TE", format!("{outer}transfer-encoding: xchunked\r\ncontent-length: 4\r\n\r\n{chunks}")),
        ("CL.CL", format!("{outer}content-length: 0\r\ncontent-length: {whole}\r\n\r\n{chunks}")),
        ("signed CL", format!("{outer}content-length: +0\r\n\r\n{smuggled}")),
        ("space before the colon", format!("{outer}content-length : 0\r\n\r\n{smuggled}")),
    ] {
        for door in target.doors() {
            let answer = wire(&door, request.as_bytes()).await;
            let statuses = statuses(&answer);
            println!("{attack:24} at {door}: {statuses:?}");
            assert!(statuses.iter().all(|status| is_refusal(status)), "{attack} at {door}: {answer}");
            assert!(!target.has_bought("smuggled").await, "{attack} at {door}");
        }
        target.is_healthy(attack).await;
    }
    target.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused() {
    let target = Target::open().await;
    let long = "a".repeat(100_000);
    for (attack, request) in [
        (
            "a bare CR in a header",
            "GET /api/sale/status HTTP/1.1\r\nhost: a\r\nx-correlation-id: a\rset-cookie: b\r\n\r\n"
                .to_owned(),
        ),
        (
            "a NUL in a header",
            "GET /api/sale/status HTTP/1.1\r\nhost: a\r\nx-correlation-id: a\0b\r\n\r\n".to_owned(),
        ),
        (
            "a header that is folded",
            "GET /api/sale/status HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n".to_owned(),
        ),
        ("a head without end", format!("GET /api/sale/status HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n")),
        ("a path without end", format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("a thousand headers", format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(1_000))),
        ("another protocol", "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03".to_owned()),
        ("HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ] {
        for door in target.doors() {
            let answer = wire(&door, request.as_bytes()).await;
            let statuses = statuses(&answer);
            println!("{attack:24} at {door}: {statuses:?}");
            // nginx takes some of what is merely odd, and passes on what is left of it: then nothing of it may come back.
            let is_refused = statuses.iter().all(|status| is_refusal(status));
            assert!(
                is_refused || !answer.to_lowercase().contains("set-cookie"),
                "{attack} at {door}: {answer}"
            );
        }
        target.is_healthy(attack).await;
    }
    target.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_or_too_slow_is_given_up() {
    let target = Target::open().await;
    for door in target.doors() {
        let url = format!("{door}/api/sale/purchase");
        let long =
            target.client.post(&url).header("content-type", "application/json").body(" ".repeat(1 << 20));
        match long.send().await {
            Ok(answer) => is_problem(answer, 413, "a long body").await,
            // The connection may be closed before everything was sent.
            Err(error) => println!("a long body at {door}: {error}"),
        }
        target.is_healthy("a long body").await;
    }

    let door = target.doors()[1].trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&door).await.unwrap();
    let head = "POST /api/sale/purchase HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    let began = Instant::now();
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let answered = timeout(Duration::from_secs(8), slow.read_exact(&mut answer)).await;
    assert!(answered.is_ok_and(|read| read.is_ok()), "a slow body is answered in time");
    println!("a slow body was given up after {:?}: {}", began.elapsed(), String::from_utf8_lossy(&answer));
    assert_eq!(&answer, b"HTTP/1.1 408");
    target.is_healthy("a slow body").await;
    target.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_letter_by_letter_is_given_up() {
    let target = Target::open().await;
    let door = target.doors()[1].trim_start_matches("http://").to_owned();
    let mut drips = Vec::new();
    for _ in 0..200 {
        drips.push(TcpStream::connect(&door).await.unwrap());
    }
    let began = Instant::now();
    let mut open = drips.len();
    for letter in b"GET /api/sale/status HTTP/1.1\r\nhost: a\r\n".iter().cycle() {
        if open == 0 || began.elapsed() > 2 * HEAD_LIMIT {
            break;
        }
        open = 0;
        for drip in &mut drips {
            let mut byte = [0; 1];
            let is_open =
                !matches!(drip.try_read(&mut byte), Ok(0)) && drip.write_all(&[*letter]).await.is_ok();
            open += usize::from(is_open);
        }
        target.is_healthy("a drop").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("200 dripping heads: {open} open after {:?}", began.elapsed());
    assert_eq!(open, 0, "the node holds connections for heads that never end");
    target.audit().await;
}

/// 501 is what nginx calls a way of transfer that it does not know.
fn is_refusal(status: &str) -> bool {
    status.starts_with('4') || status == "501"
}
