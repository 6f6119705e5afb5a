//! A stack under attack with checks that it is healthy. Only one such stack runs at a time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use service::time::now;
use testkit::stack::SaleOptions;
use testkit::{Stack, StackOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Longest time that a legitimate purchase may take during an attack.
const HEALTHY_LATENCY_MAX: Duration = Duration::from_secs(2);
/// The node's timeout for the head of a request in these tests.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

const TOKEN_SECRET: &str = "a secret of thirty-two characters";

pub(crate) static STACK_LOCK: Mutex<()> = Mutex::const_new(());

/// A sale under attack.
pub(crate) struct Target {
    pub(crate) stack: Stack,
    pub(crate) client: Client,
    buyers: AtomicU32,
    _stack_lock: MutexGuard<'static, ()>,
}

impl Target {
    pub(crate) async fn open() -> Self {
        Self::with_node_environment(&[]).await
    }

    /// Starts a sale whose node has additional settings.
    pub(crate) async fn with_node_environment(settings: &[(&str, &str)]) -> Self {
        let stack_lock = STACK_LOCK.lock().await;
        let head_limit = format!("{}s", HEAD_LIMIT.as_secs());
        let settings = settings.iter().copied().chain([("HEADER_READ_TIMEOUT", &*head_limit)]);
        let options = StackOptions {
            nodes: 1,
            sale: SaleOptions { total_stock: 1_000, ..SaleOptions::default() },
            node_environment: settings.map(|(name, value)| (name.into(), value.into())).collect(),
            ..StackOptions::default()
        };
        let stack = Stack::start(options, |_| ()).await.unwrap();
        Self { stack, client: Client::new(), buyers: AtomicU32::new(0), _stack_lock: stack_lock }
    }

    /// Both ways to the service: through nginx, and directly to the node.
    pub(crate) fn base_urls(&self) -> [String; 2] {
        [self.stack.url(), self.stack.nodes()[0].url().to_owned()]
    }

    pub(crate) async fn get(&self, url: &str) -> Response {
        self.client.get(url).send().await.unwrap()
    }

    /// Returns the status of a purchase at this address.
    pub(crate) async fn buy(&self, base_url: &str, user: &str) -> u16 {
        self.purchase(&format!("{base_url}/api/sale/purchase"), user).send().await.unwrap().status().into()
    }

    pub(crate) fn purchase(&self, url: &str, user: &str) -> RequestBuilder {
        self.client.post(url).timeout(ANSWER_LIMIT).json(&json!({ "userId": user }))
    }

    /// Asserts that a legitimate buyer can buy at both URLs without delay.
    pub(crate) async fn assert_healthy(&self, after: &str) {
        for base_url in self.base_urls() {
            let user = format!("honest-{}", self.buyers.fetch_add(1, Ordering::Relaxed));
            let began = Instant::now();
            assert_eq!(self.buy(&base_url, &user).await, 200, "after {after} at {base_url}");
            let took = began.elapsed();
            assert!(took < HEALTHY_LATENCY_MAX, "after {after} a purchase at {base_url} took {took:?}");
        }
        let ready = self.get(&format!("{}/readyz", self.stack.nodes()[0].ops_url())).await;
        assert_eq!(ready.status(), 200, "after {after}");
    }

    /// Returns true when this user has bought a unit.
    pub(crate) async fn has_bought(&self, user: &str) -> bool {
        let found = self.get(&format!("{}/api/sale/purchase/{user}", self.stack.url())).await;
        found.json::<Value>().await.unwrap()["hasPurchased"] == true
    }

    /// Asserts that the audit finds no violation, and ends the stack.
    pub(crate) async fn assert_audit_ok(self) {
        let audit = self.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "{audit:?}");
    }
}

/// Returns the environment of nodes whose users have accounts. The limits apply to this test, whose address is exempt
/// otherwise.
pub(crate) fn accounts() -> Vec<(String, String)> {
    let variables = [
        ("AUTH", "jwt"),
        ("JWT_SECRET", TOKEN_SECRET),
        ("JWT_AUDIENCE", "shop"),
        ("JWT_ISSUER", "https://issuer.example"),
        ("RATE_LIMIT_EXEMPT", "192.0.2.1"),
    ];
    variables.map(|(name, value)| (name.into(), value.into())).into()
}

/// Returns a token of this user for nodes with [`accounts`].
pub(crate) fn token_of(user: &str) -> String {
    let expires_at = now() / 1_000 + 600;
    let claims = json!({ "sub": user, "aud": "shop", "iss": "https://issuer.example", "exp": expires_at });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(TOKEN_SECRET.as_bytes())).unwrap()
}

/// Asserts that the answer is a problem+json with this status and the request's correlation id.
pub(crate) async fn assert_problem(answer: Response, status: u16, what: &str) {
    assert_eq!(answer.status(), status, "{what}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{what}");
    let correlation = answer.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.json::<Value>().await.unwrap()["correlationId"], correlation, "{what}");
}

/// Opens a connection to a server.
pub(crate) async fn connect(base_url: &str) -> TcpStream {
    TcpStream::connect(base_url.trim_start_matches("http://")).await.unwrap()
}

/// Sends raw bytes, and reads until the connection is closed or silent for 700 ms.
pub(crate) async fn send_raw(base_url: &str, bytes: &[u8]) -> String {
    let mut stream = connect(base_url).await;
    // A server may reject the request before all bytes were sent.
    let _refused_early = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_millis(700), stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the statuses of all answers in the text.
pub(crate) fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}
