//! The stage: a stack that all attacks share, one after the other, and whoever asks whether it is healthy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::stack::SaleOptions;
use testkit::{Stack, StackOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Longest time that an honest buyer is made to wait by an attack.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a node waits for the head of a request here.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

static STAGE: Mutex<()> = Mutex::const_new(());

/// A sale under attack.
pub(crate) struct Target {
    pub(crate) stack: Stack,
    pub(crate) client: Client,
    buyers: AtomicU32,
    _stage: MutexGuard<'static, ()>,
}

impl Target {
    pub(crate) async fn open() -> Self {
        let stage = STAGE.lock().await;
        let options = StackOptions {
            nodes: 1,
            sale: SaleOptions { total_stock: 1_000, ..SaleOptions::default() },
            node_environment: vec![("HEADER_READ_TIMEOUT".into(), format!("{}s", HEAD_LIMIT.as_secs()))],
            ..StackOptions::default()
        };
        let stack = Stack::start(options, |_| ()).await.unwrap();
        Self { stack, client: Client::new(), buyers: AtomicU32::new(0), _stage: stage }
    }

    /// Both ways in: through nginx, and straight to the node.
    pub(crate) fn doors(&self) -> [String; 2] {
        [self.stack.url(), self.stack.nodes()[0].url().to_owned()]
    }

    /// Asserts that somebody who means no harm can buy, quickly, at both doors.
    pub(crate) async fn is_healthy(&self, after: &str) {
        for door in self.doors() {
            let user = format!("honest-{}", self.buyers.fetch_add(1, Ordering::Relaxed));
            let began = Instant::now();
            let answer = buy(&self.client, &door, &user).timeout(ANSWER_LIMIT).send().await.unwrap();
            assert_eq!(answer.status(), 200, "after {after} at {door}");
            assert!(
                began.elapsed() < PATIENCE,
                "after {after} a purchase at {door} took {:?}",
                began.elapsed()
            );
        }
        let ready =
            self.client.get(format!("{}/readyz", self.stack.nodes()[0].ops_url())).send().await.unwrap();
        assert_eq!(ready.status(), 200, "after {after}");
    }

    /// Whether this user has a unit.
    pub(crate) async fn has_bought(&self, user: &str) -> bool {
        let found =
            self.client.get(format!("{}/api/sale/purchase/{user}", self.stack.url())).send().await.unwrap();
        found.json::<Value>().await.unwrap()["hasPurchased"] == true
    }

    /// Ends it: nothing was sold twice, or to nobody.
    pub(crate) async fn audit(self) {
        let audit = self.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "{audit:?}");
    }
}

pub(crate) fn buy(client: &Client, door: &str, user: &str) -> RequestBuilder {
    client.post(format!("{door}/api/sale/purchase")).json(&json!({ "userId": user }))
}

/// An answer that refuses, as a problem with the name of its request.
pub(crate) async fn is_problem(answer: Response, status: u16, what: &str) {
    assert_eq!(answer.status(), status, "{what}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{what}");
    let correlation = answer.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.json::<Value>().await.unwrap()["correlationId"], correlation, "{what}");
}

/// Sends bytes as they are, and reads what comes back until the connection is closed or nothing comes any more.
pub(crate) async fn wire(door: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(door.trim_start_matches("http://")).await.unwrap();
    // A server may refuse before everything was sent.
    let _refused_early = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_millis(700), stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses in what came back over a connection.
pub(crate) fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}
