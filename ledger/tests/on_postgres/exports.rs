//! Large exports, clients that stop reading, and a PostgreSQL that fails under them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use testkit::until;

use crate::filled::FilledLedger;
use crate::fixture::{READ_TOKEN, SOON};

/// Orders whose lines do not fit into the buffers of a connection.
const MANY: u32 = 100_000;
/// Most memory that a ledger may need for an export, beyond the memory of its first one. The file has 15 MB.
const GROWTH_KB_MAX: u64 = 12_000;

impl FilledLedger {
    /// Most memory that the ledger has had.
    fn memory_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Begins an export, and reads only the first bytes of it.
    fn stall(&self) -> (TcpStream, String) {
        let address = self.url("").replace("http://", "");
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "GET /sales/flash/orders HTTP/1.1\r\nhost: ledger\r\naccept: text/csv\r\n\
             authorization: Bearer {READ_TOKEN}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 256];
        let length = stream.read(&mut head).unwrap();
        (stream, String::from_utf8_lossy(&head[..length]).into_owned())
    }
}

#[tokio::test]
async fn export_needs_constant_memory() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=MANY);
    for (format, heads) in [("application/x-ndjson", 0), ("text/csv", 1)] {
        // The first export warms up connections and buffers.
        let warm = ledger.send(Method::GET, "/sales/flash/orders?limit=5000", format).await;
        warm.text().await.unwrap();
        let before = ledger.memory_kb();

        let mut response = ledger.send(Method::GET, "/sales/flash/orders", format).await;
        let mut lines = 0;
        while let Some(chunk) = response.chunk().await.unwrap() {
            lines += chunk.iter().filter(|&&byte| byte == b'\n').count();
        }
        assert_eq!(lines, MANY as usize + heads, "{format}");
        let growth = ledger.memory_kb() - before;
        assert!(growth < GROWTH_KB_MAX, "{format}: {growth} kB more for {MANY} orders");
    }
}

#[tokio::test]
async fn export_ends_with_an_error_when_postgres_dies() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=MANY);
    let mut response = ledger.send(Method::GET, "/sales/flash/orders", "application/x-ndjson").await;
    assert_eq!(response.status(), StatusCode::OK);
    response.chunk().await.unwrap();
    ledger.database.postgres.kill();

    let ended = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(ended.is_err(), "a part of the orders looks like all of them");
}

#[tokio::test]
async fn stalled_exports_leave_room_for_lookups() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=MANY);
    // Given more stalled exports than are allowed at a time.
    let stalled: Vec<(TcpStream, String)> = (0..20).map(|_| ledger.stall()).collect();
    let refused = stalled.iter().filter(|(_, head)| head.starts_with("HTTP/1.1 503")).count();
    assert_eq!(refused, 4, "{:?}", stalled.iter().map(|(_, head)| &head[..20]).collect::<Vec<_>>());

    let started = Instant::now();
    assert_eq!(ledger.read("/sales/flash/orders/one-77").await.0, StatusCode::OK);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());

    // Then their connections are closed, and others may export.
    let allowed = async || {
        let response = ledger.send(Method::HEAD, "/sales/flash/orders", "text/csv").await;
        response.status() == StatusCode::OK
    };
    until("an export is allowed again", SOON, allowed).await.unwrap();
}

#[tokio::test]
async fn lookups_are_refused_in_time_when_postgres_freezes() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=5);
    let lookup = async || {
        let request = Client::new().get(ledger.url("/sales/flash/orders/one-3")).bearer_auth(READ_TOKEN);
        request.send().await.unwrap().status()
    };
    assert_eq!(lookup().await, StatusCode::OK);

    // DATABASE_TIMEOUT is 2 s: a lookup waits for a connection, and for its answer.
    ledger.database.postgres.freeze();
    let started = Instant::now();
    let answers = futures::future::join_all((0..12).map(|_| lookup())).await;
    let took = started.elapsed();
    assert_eq!(answers, [StatusCode::SERVICE_UNAVAILABLE; 12]);
    assert!(took < Duration::from_secs(9), "{took:?}");

    ledger.database.postgres.thaw();
    until("lookups are answered again", SOON, async || lookup().await == StatusCode::OK).await.unwrap();
}
