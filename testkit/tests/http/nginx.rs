//! Tests how nginx changes a purchase on its way to a node, and how it answers when no node is available.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use futures::future::join_all;
use reqwest::{Client, Method, Response, header::RETRY_AFTER};
use serde_json::{Value, json};
use testkit::{
    Folder, Lifetime, Nginx,
    nginx::NginxOptions,
    ports::{PortBlock, loopback},
    until,
};

use crate::fake_node::FakeNode;

const PURCHASE: &str = "/api/sale/purchase";

#[tokio::test]
async fn nginx_accepts_its_configuration_without_warnings() {
    let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());

    options(&ports, folder.path(), &[loopback(9), loopback(10)]).check().await.unwrap();
}

#[tokio::test]
async fn nginx_adds_only_missing_idempotency_keys() {
    let node = FakeNode::answering(&[200]).await;
    let nginx = NginxFixture::in_front_of(&[&node]).await;

    nginx.post(PURCHASE).await;
    nginx.post("/api/sales/flash/purchase").await;
    nginx.client.post(nginx.url(PURCHASE)).header("idempotency-key", "mine").send().await.unwrap();
    nginx.client.get(nginx.url("/api/sale/status")).send().await.unwrap();

    let keys = node.header_values("idempotency-key");
    assert!(keys[0].is_some() && keys[1].is_some() && keys[0] != keys[1]);
    assert_eq!(keys[2..], [Some("mine".to_owned()), None]);
    assert!(node.header_values("x-correlation-id").iter().all(Option::is_some));
}

#[tokio::test]
async fn nginx_replaces_forwarded_address_of_client() {
    let node = FakeNode::answering(&[200]).await;
    let nginx = NginxFixture::in_front_of(&[&node]).await;

    nginx.client.post(nginx.url(PURCHASE)).header("x-forwarded-for", "8.8.8.8").send().await.unwrap();

    assert_eq!(node.header_values("x-forwarded-for"), [Some("127.0.0.1".to_owned())]);
}

#[tokio::test]
async fn nginx_trusts_only_balancers_for_address_and_tls() {
    let node = FakeNode::answering(&[200]).await;
    let behind = NginxFixture::behind(&["127.0.0.0/8".to_owned()], &[node.addr]).await;
    let edge = NginxFixture::in_front_of(&[&node]).await;
    let post = async |nginx: &NginxFixture, proto: &str, client: &str| {
        let request = nginx.client.post(nginx.url(PURCHASE)).header("x-forwarded-proto", proto);
        let answer = request.header("x-forwarded-for", client).send().await.unwrap();
        answer.headers().get("strict-transport-security").is_some()
    };

    assert!(post(&behind, "https", "8.8.8.8, 203.0.113.9, 127.0.0.2").await, "TLS ended at the balancer");
    assert!(!post(&behind, "http", "203.0.113.9").await);
    assert!(!post(&edge, "https", "203.0.113.9").await, "a stranger says so");

    let seen = |header| node.header_values(header).into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(seen("x-forwarded-for"), ["203.0.113.9", "203.0.113.9", "127.0.0.1"]);
    assert_eq!(seen("x-forwarded-proto"), ["https", "http", "http"]);
}

#[tokio::test]
async fn logged_samples_of_refusals_name_no_user() {
    let nginx = NginxFixture::without_a_node().await;
    let samples = || {
        let log = fs::read_to_string(nginx.nginx.process().log()).unwrap();
        log.lines().filter(|line| line.contains("refused: 50")).map(str::to_owned).collect::<Vec<_>>()
    };

    // One of 256 requests is logged, by chance.
    let send_some = async || {
        let lookups = (0..500)
            .map(|_| nginx.client.get(nginx.url("/api/sales/flash/purchase/ann%40shop?of=ann")).send());
        join_all(lookups).await;
        !samples().is_empty()
    };
    until("a sample of the refused lookups", Duration::from_secs(60), send_some).await.unwrap();

    let line = &samples()[0];
    assert!(line.contains("\"GET /api/sales/flash/purchase/\"") && !line.contains("ann"), "{line}");
}

#[tokio::test]
async fn nginx_errors_carry_headers_of_node_errors() {
    let nginx = NginxFixture::without_a_node().await;

    let answer = nginx.post(PURCHASE).await;

    let expected = [
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in expected {
        assert_eq!(answer.headers()[name], value);
    }
}

#[tokio::test]
async fn nginx_removes_user_header_of_clients() {
    let node = FakeNode::answering(&[200]).await;
    let nginx = NginxFixture::in_front_of(&[&node]).await;

    let requests = [
        (Method::POST, PURCHASE),
        (Method::POST, "/api/sales/flash/purchase"),
        (Method::POST, "/api/purchase"),
        (Method::GET, "/api/sale/purchase/ann"),
        (Method::GET, "/api/sale/events"),
        (Method::GET, "/assets/page.js"),
        (Method::TRACE, "/"),
    ];
    for (method, path) in requests.clone() {
        let request = nginx.client.request(method, nginx.url(path));
        request
            .header("x-authenticated-user", "ann")
            .header("X-AUTHENTICATED-USER", "bob")
            .send()
            .await
            .unwrap();
    }

    assert_eq!(node.header_values("x-authenticated-user"), vec![None; requests.len()]);
}

#[tokio::test]
async fn nginx_retries_with_same_key_when_node_dies() {
    let (dying, healthy) = (FakeNode::closing_each_connection().await, FakeNode::answering(&[200]).await);
    let nginx = NginxFixture::in_front_of(&[&dying, &healthy]).await;

    for _ in 0..10 {
        assert_eq!(nginx.post(PURCHASE).await.status(), 200);
    }

    let [tried, answered] = [dying, healthy].map(|node| node.header_values("idempotency-key"));
    assert!(!tried.is_empty(), "no purchase reached the dying node");
    assert!(tried.iter().all(|key| key.is_some() && answered.contains(key)));
}

#[tokio::test]
async fn nginx_does_not_retry_a_503() {
    let (first, second) = (FakeNode::answering(&[503]).await, FakeNode::answering(&[503]).await);
    let nginx = NginxFixture::in_front_of(&[&first, &second]).await;

    assert_eq!(nginx.post(PURCHASE).await.status(), 503);

    assert_eq!(first.header_values("host").len() + second.header_values("host").len(), 1);
}

#[tokio::test]
async fn nginx_sends_retry_after_without_a_node() {
    let nginx = NginxFixture::without_a_node().await;

    let answer = nginx.post(PURCHASE).await;

    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()[RETRY_AFTER], "1");
    problem(answer).await;
}

/// Two nodes are replaced one after the other. nginx still avoids the first one when the second one stops.
#[tokio::test]
async fn nginx_uses_only_recovered_node_at_once() {
    let (recovered, absent) = (PortBlock::take().unwrap(), PortBlock::take().unwrap());
    let nodes = [loopback(recovered.first()), loopback(absent.first())];
    let nginx = NginxFixture::in_front_of_addresses(&nodes).await;
    for _ in 0..8 {
        assert_eq!(nginx.post(PURCHASE).await.status(), 503, "nginx avoids both from now on");
    }

    let _node = FakeNode::answering_at(nodes[0], &[200]).await;

    for _ in 0..8 {
        assert_eq!(nginx.post(PURCHASE).await.status(), 200);
    }
}

#[tokio::test]
async fn nginx_answer_echoes_only_valid_correlation_ids() {
    let nginx = NginxFixture::without_a_node().await;
    let post_with_id = async |id: &str| {
        let request = nginx.client.post(nginx.url(PURCHASE)).header("x-correlation-id", id);
        let (echoed, problem) = problem(request.send().await.unwrap()).await;
        assert_eq!(problem["correlationId"], *echoed);
        echoed
    };

    assert_eq!(post_with_id("trace-1").await, "trace-1");
    let other_name = nginx.client.post(nginx.url(PURCHASE)).header("correlation-id", "trace-2");
    let answer = other_name.send().await.unwrap();
    assert_eq!(answer.headers()["correlation-id"], "trace-2");
    assert_eq!(problem(answer).await.0, "trace-2");
    assert_ne!(post_with_id(r#"","status":200,"x":""#).await, r#"","status":200,"x":""#);
}

#[tokio::test]
async fn nginx_refuses_an_oversized_body() {
    let node = FakeNode::answering(&[200]).await;
    let nginx = NginxFixture::in_front_of(&[&node]).await;

    let answer = nginx.client.post(nginx.url(PURCHASE)).body(vec![b' '; 1 << 20]).send().await.unwrap();

    assert_eq!(answer.status(), 413);
    problem(answer).await;
    assert!(node.header_values("host").is_empty());
}

#[tokio::test]
async fn nginx_refusals_have_the_form_of_nodes() {
    let node = FakeNode::answering(&[200]).await;
    let nginx = NginxFixture::in_front_of(&[&node]).await;
    let (long, too_long) = ("a".repeat(6_000), "a".repeat(60_000));

    let refused = [
        (nginx.client.get(nginx.url("/api/sale/purchase/%00")), 400, "Bad Request"),
        (nginx.client.get(nginx.url(&format!("/{too_long}"))), 414, "URI Too Long"),
        (nginx.client.get(nginx.url("/")).header("a", too_long), 431, "Request Header Fields Too Large"),
        (nginx.client.get(nginx.url("/.problem")), 404, "Not Found"),
    ];
    for (request, status, title) in refused {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        let (correlation, problem) = problem(answer).await;
        let expected =
            json!({ "type": "about:blank", "title": title, "status": status, "correlationId": correlation });
        assert_eq!(problem, expected);
    }
    assert!(node.header_values("host").is_empty());
    assert_eq!(nginx.client.get(nginx.url("/")).header("a", long).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn refused_methods_are_passed_to_a_node() {
    let node = FakeNode::answering(&[405]).await;
    let nginx = NginxFixture::in_front_of(&[&node]).await;

    let answer = nginx.client.request(Method::TRACE, nginx.url("/api/sale/status")).send().await.unwrap();

    assert_eq!(answer.status(), 405);
    assert_eq!(node.header_values("host").len(), 1);
    assert!(node.header_values("x-correlation-id").iter().all(Option::is_some));
}

#[tokio::test]
async fn nginx_routes_to_nodes_added_later() {
    let (first, second) = (FakeNode::answering(&[200]).await, FakeNode::answering(&[200]).await);
    let nginx = NginxFixture::in_front_of(&[&first]).await;

    nginx.nginx.serve(vec![second.addr]).await.unwrap();
    nginx.post(PURCHASE).await;

    assert_eq!((first.header_values("host").len(), second.header_values("host").len()), (0, 1));
}

/// A running nginx in front of some nodes, and an HTTP client.
struct NginxFixture {
    nginx: Nginx,
    client: Client,
    ports: PortBlock,
    _folder: Folder,
}

impl NginxFixture {
    async fn in_front_of(nodes: &[&FakeNode]) -> Self {
        Self::in_front_of_addresses(&nodes.iter().map(|node| node.addr).collect::<Vec<_>>()).await
    }

    async fn without_a_node() -> Self {
        let ports = PortBlock::take().unwrap();
        let unused = loopback(ports.first() + 1);
        Self::start(ports, &[unused]).await
    }

    async fn in_front_of_addresses(nodes: &[SocketAddr]) -> Self {
        Self::start(PortBlock::take().unwrap(), nodes).await
    }

    async fn behind(balancers: &[String], nodes: &[SocketAddr]) -> Self {
        Self::start_behind(balancers, PortBlock::take().unwrap(), nodes).await
    }

    async fn start(ports: PortBlock, nodes: &[SocketAddr]) -> Self {
        Self::start_behind(&[], ports, nodes).await
    }

    async fn start_behind(balancers: &[String], ports: PortBlock, nodes: &[SocketAddr]) -> Self {
        let folder = Folder::temporary().unwrap();
        let options = NginxOptions { balancers: balancers.to_vec(), ..options(&ports, folder.path(), nodes) };
        let nginx = Nginx::start(options).await.unwrap();
        Self { nginx, client: Client::new(), ports, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", loopback(self.ports.first()))
    }

    async fn post(&self, path: &str) -> Response {
        self.client.post(self.url(path)).body(r#"{"userId":"ada"}"#).send().await.unwrap()
    }
}

/// Reads an answer that must be a problem. Returns its correlation id and its body.
async fn problem(answer: Response) -> (String, Value) {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let correlation = answer.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    (correlation, answer.json().await.unwrap())
}

fn options(ports: &PortBlock, folder: &Path, nodes: &[SocketAddr]) -> NginxOptions {
    NginxOptions {
        port: ports.first(),
        workers: "auto",
        balancers: Vec::new(),
        nodes: nodes.to_vec(),
        folder: folder.to_owned(),
        lifetime: Lifetime::Attached,
    }
}
