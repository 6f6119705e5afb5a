//! Purchases from browsers, and how a client gets a new token.

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Request, request};
use serde_json::json;
use service::serve::Peer;

use crate::fixture::{Answer, TestNode, post_json};

const BY_SALE: &str = "/api/sale/purchase";
const SINGLE_SALE: &str = "/api/purchase";

fn with_pair(path: &str, header: &str, cookie: &str) -> request::Builder {
    post_json(path).header("x-csrf-token", header).header(COOKIE, format!("a=b; csrfToken={cookie}; c"))
}

async fn send(node: &TestNode, request: request::Builder, user: &str) -> Answer {
    node.send(request, json!({ "userId": user }).to_string()).await
}

/// Returns the token in the cookie that a response sets.
#[track_caller]
fn cookie(answer: &Answer) -> String {
    let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
    let (name, rest) = cookie.split_once('=').unwrap();
    let (token, attributes) = rest.split_once("; ").unwrap();
    assert_eq!((name, attributes), ("csrfToken", "Path=/; Max-Age=7200; SameSite=Lax"));
    token.to_owned()
}

#[tokio::test]
async fn single_sale_client_buys_with_an_issued_token() {
    let node = TestNode::selling(10).await;
    let issued = node.get("/api/csrf").await;
    let token = issued.body["csrfToken"].as_str().unwrap();
    assert_eq!((issued.status, &*cookie(&issued)), (200, token));

    let bought = send(&node, with_pair(SINGLE_SALE, token, token), "ann").await;
    assert_eq!((bought.status, &bought.body["status"]), (200, &json!("purchased")));
}

#[tokio::test]
async fn client_succeeds_with_the_token_of_a_refusal() {
    let node = TestNode::selling(10).await;
    for (user, request, reason) in [
        ("ann", post_json(SINGLE_SALE), "missing"),
        ("bob", post_json(SINGLE_SALE).header("x-csrf-token", "alone"), "missing"),
        ("cid", with_pair(SINGLE_SALE, "one", "another"), "mismatch"),
        ("dan", with_pair(SINGLE_SALE, "self-made", "self-made"), "invalid"),
    ] {
        let refused = send(&node, request, user).await;
        assert_eq!((refused.status, &refused.body["error"]), (403, &json!("csrf")), "{reason}");
        assert_eq!(refused.body["reason"], reason);

        let token = refused.body["csrfToken"].as_str().unwrap().to_owned();
        assert_eq!(cookie(&refused), token);
        assert_eq!(send(&node, with_pair(SINGLE_SALE, &token, &token), user).await.status, 200);
    }
}

#[tokio::test]
async fn by_sale_refusal_is_a_problem_with_token() {
    let node = TestNode::selling(10).await;
    let refused = send(&node, with_pair(BY_SALE, "self-made", "self-made"), "ann").await;
    refused.assert_problem(403);
    assert_eq!(refused.body["type"], "/problems/csrf");
    assert_eq!(refused.body["reason"], "invalid");
    let token = refused.body["csrfToken"].as_str().unwrap().to_owned();
    assert_eq!(cookie(&refused), token);
    assert_eq!(send(&node, with_pair(BY_SALE, &token, &token), "ann").await.status, 200);
}

#[tokio::test]
async fn token_is_valid_on_another_node() {
    let (one, other) = (TestNode::selling(10).await, TestNode::selling(10).await);
    let token = one.get("/api/csrf").await.body["csrfToken"].as_str().unwrap().to_owned();
    assert_eq!(send(&other, with_pair(SINGLE_SALE, &token, &token), "ann").await.status, 200);
}

#[tokio::test]
async fn token_expires() {
    let node = TestNode::with_flags(&["--csrf-lifetime", "1ms"]).await;
    let token = node.get("/api/csrf").await.body["csrfToken"].as_str().unwrap().to_owned();
    let expired =
        async || send(&node, with_pair(SINGLE_SALE, &token, &token), "ann").await.body["reason"] == "expired";
    testkit::until("the token to expire", std::time::Duration::from_secs(5), expired).await.unwrap();
}

#[tokio::test]
async fn only_allowed_sites_can_buy() {
    let node = TestNode::with_flags(&["--cors-origin", "https://shop.example,https://app.example"]).await;
    let from = |origin| {
        let request = post_json(BY_SALE).header("sec-fetch-site", "cross-site");
        request.header("origin", origin).header(COOKIE, "a=b")
    };
    send(&node, from("https://evil.example"), "ann").await.assert_problem(403);
    let allowed = send(&node, from("https://app.example"), "ann").await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(allowed.headers["access-control-allow-credentials"], "true");
}

#[tokio::test]
async fn preflight_allows_only_configured_origins() {
    let node = TestNode::with_flags(&["--cors-origin", "https://shop.example"]).await;
    let preflight = |origin| {
        let request = Request::options(BY_SALE).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "content-type,idempotency-key")
    };
    let allowed = node.send(preflight("https://shop.example"), "").await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://shop.example");
    let headers = allowed.headers["access-control-allow-headers"].to_str().unwrap();
    for name in ["idempotency-key", "x-correlation-id", "correlation-id"] {
        assert!(headers.split(',').any(|header| header.trim() == name), "{name}");
    }
    let other = node.send(preflight("https://evil.example"), "").await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn cookie_is_secure_behind_tls() {
    let node = TestNode::with_flags(&["--trusted-proxies", "10.0.0.0/8"]).await;
    let through = |peer: &str, proto| {
        let peer = Peer(format!("{peer}:1").parse().unwrap());
        Request::get("/api/csrf").extension(peer).header("x-forwarded-proto", proto)
    };
    for (peer, proto, is_secure) in
        [("10.0.0.1", "https", true), ("10.0.0.1", "http", false), ("192.0.2.7", "https", false)]
    {
        let issued = node.send(through(peer, proto), "").await;
        let cookie = issued.headers[SET_COOKIE].to_str().unwrap();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{peer} {proto}");
    }
}

#[tokio::test]
async fn every_response_has_security_headers() {
    let node = TestNode::selling(10).await;
    for path in ["/api/sale/status", "/api/csrf", "/nowhere"] {
        let answer = node.get(path).await;
        for (header, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.headers[header], value, "{path}");
        }
    }
}
