//! What nginx does to a purchase on its way to a node, and what it says when there is none.

use std::{net::SocketAddr, path::Path};

use reqwest::{Client, Method, Response, header::RETRY_AFTER};
use testkit::{
    Folder, Lifetime, Nginx,
    nginx::NginxOptions,
    ports::{PortBlock, loopback},
};

use crate::fake_node::FakeNode;

const PURCHASE: &str = "/api/sale/purchase";

#[tokio::test]
async fn nginx_accepts_its_configuration_without_a_warning() {
    let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());

    options(&ports, folder.path(), &[loopback(9), loopback(10)]).check().await.unwrap();
}

#[tokio::test]
async fn a_purchase_without_a_key_gets_one_and_a_clients_own_key_stays() {
    let node = FakeNode::answering(&[200]).await;
    let front = NginxFixture::of(&[&node]).await;

    front.post(PURCHASE).await;
    front.post("/api/sales/flash/purchase").await;
    front.client.post(front.url(PURCHASE)).header("idempotency-key", "mine").send().await.unwrap();
    front.client.get(front.url("/api/sale/status")).send().await.unwrap();

    let keys = node.saw("idempotency-key");
    assert!(keys[0].is_some() && keys[1].is_some() && keys[0] != keys[1]);
    assert_eq!(keys[2..], [Some("mine".to_owned()), None]);
    assert!(node.saw("x-correlation-id").iter().all(Option::is_some));
}

#[tokio::test]
async fn an_address_that_a_client_claims_does_not_reach_the_node() {
    let node = FakeNode::answering(&[200]).await;
    let front = NginxFixture::of(&[&node]).await;

    front.client.post(front.url(PURCHASE)).header("x-forwarded-for", "8.8.8.8").send().await.unwrap();

    assert_eq!(node.saw("x-forwarded-for"), [Some("127.0.0.1".to_owned())]);
}

#[tokio::test]
async fn a_purchase_at_a_dying_node_is_the_same_attempt_at_the_next() {
    let (dying, healthy) = (FakeNode::dying_at_each_request().await, FakeNode::answering(&[200]).await);
    let front = NginxFixture::of(&[&dying, &healthy]).await;

    for _ in 0..10 {
        assert_eq!(front.post(PURCHASE).await.status(), 200);
    }

    let (tried, answered) = (dying.saw("idempotency-key"), healthy.saw("idempotency-key"));
    assert!(!tried.is_empty(), "no purchase met the dying node");
    assert!(tried.iter().all(|key| key.is_some() && answered.contains(key)));
}

#[tokio::test]
async fn a_shedding_node_is_believed_and_not_asked_twice() {
    let (first, second) = (FakeNode::answering(&[503]).await, FakeNode::answering(&[503]).await);
    let front = NginxFixture::of(&[&first, &second]).await;

    assert_eq!(front.post(PURCHASE).await.status(), 503);

    assert_eq!(first.saw("host").len() + second.saw("host").len(), 1);
}

#[tokio::test]
async fn without_a_node_a_buyer_is_told_when_to_come_back() {
    let nobody = PortBlock::take().unwrap();
    let front = NginxFixture::before(&[loopback(nobody.first())]).await;

    let answer = front.post(PURCHASE).await;

    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()[RETRY_AFTER], "1");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

/// Of two nodes that are replaced one after the other, the first is still left out when the second goes.
#[tokio::test]
async fn a_node_that_is_back_is_asked_at_once_if_there_is_no_other() {
    let (back, gone) = (PortBlock::take().unwrap(), PortBlock::take().unwrap());
    let nodes = [loopback(back.first()), loopback(gone.first())];
    let front = NginxFixture::before(&nodes).await;
    for _ in 0..8 {
        assert_eq!(front.post(PURCHASE).await.status(), 503, "both are left out from now on");
    }

    let _node = FakeNode::answering_at(nodes[0], &[200]).await;

    for _ in 0..8 {
        assert_eq!(front.post(PURCHASE).await.status(), 200);
    }
}

#[tokio::test]
async fn an_answer_of_nginx_carries_the_correlation_id_but_nothing_that_is_none() {
    let nobody = PortBlock::take().unwrap();
    let front = NginxFixture::before(&[loopback(nobody.first())]).await;
    let ask = async |id: &str| {
        let answer =
            front.client.post(front.url(PURCHASE)).header("x-correlation-id", id).send().await.unwrap();
        let echoed = answer.headers()["x-correlation-id"].to_str().unwrap().to_owned();
        let problem: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(problem["correlationId"], *echoed);
        echoed
    };

    assert_eq!(ask("trace-1").await, "trace-1");
    assert_ne!(ask(r#"","status":200,"x":""#).await, r#"","status":200,"x":""#);
}

#[tokio::test]
async fn a_body_that_is_no_purchase_stops_at_nginx() {
    let node = FakeNode::answering(&[200]).await;
    let front = NginxFixture::of(&[&node]).await;

    let answer = front.client.post(front.url(PURCHASE)).body(vec![b' '; 1 << 20]).send().await.unwrap();

    assert_eq!(answer.status(), 413);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert!(node.saw("host").is_empty());
}

#[tokio::test]
async fn whatever_nginx_cannot_bear_is_refused_as_a_node_would() {
    let node = FakeNode::answering(&[200]).await;
    let front = NginxFixture::of(&[&node]).await;
    let (long, too_long) = ("a".repeat(6_000), "a".repeat(60_000));

    let refused = [
        (front.client.get(front.url("/api/sale/purchase/%00")), 400, "Bad Request"),
        (front.client.get(front.url(&format!("/{too_long}"))), 414, "URI Too Long"),
        (front.client.get(front.url("/")).header("a", too_long), 431, "Request Header Fields Too Large"),
        (front.client.get(front.url("/.problem")), 404, "Not Found"),
    ];
    for (request, status, title) in refused {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let correlation = answer.headers()["x-correlation-id"].to_str().unwrap().to_owned();
        let problem: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank", "title": title, "status": status, "correlationId": correlation,
        });
        assert_eq!(problem, expected);
    }
    assert!(node.saw("host").is_empty());
    assert_eq!(front.client.get(front.url("/")).header("a", long).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_method_that_nginx_refuses_is_refused_by_a_node_which_knows_the_others() {
    let node = FakeNode::answering(&[405]).await;
    let front = NginxFixture::of(&[&node]).await;

    let answer = front.client.request(Method::TRACE, front.url("/api/sale/status")).send().await.unwrap();

    assert_eq!(answer.status(), 405);
    assert_eq!(node.saw("host").len(), 1);
    assert!(node.saw("x-correlation-id").iter().all(Option::is_some));
}

#[tokio::test]
async fn a_node_added_later_is_served_too() {
    let (first, second) = (FakeNode::answering(&[200]).await, FakeNode::answering(&[200]).await);
    let front = NginxFixture::of(&[&first]).await;

    front.nginx.serve(vec![second.addr]).await.unwrap();
    front.post(PURCHASE).await;

    assert_eq!((first.saw("host").len(), second.saw("host").len()), (0, 1));
}

/// A running nginx before some nodes, and a client of it.
struct NginxFixture {
    nginx: Nginx,
    client: Client,
    ports: PortBlock,
    _folder: Folder,
}

impl NginxFixture {
    async fn of(nodes: &[&FakeNode]) -> Self {
        Self::before(&nodes.iter().map(|node| node.addr).collect::<Vec<_>>()).await
    }

    async fn before(nodes: &[SocketAddr]) -> Self {
        let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());
        let nginx = Nginx::start(options(&ports, folder.path(), nodes)).await.unwrap();
        Self { nginx, client: Client::new(), ports, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", loopback(self.ports.first()))
    }

    async fn post(&self, path: &str) -> Response {
        self.client.post(self.url(path)).body(r#"{"userId":"ada"}"#).send().await.unwrap()
    }
}

fn options(ports: &PortBlock, folder: &Path, nodes: &[SocketAddr]) -> NginxOptions {
    NginxOptions {
        port: ports.first(),
        nodes: nodes.to_vec(),
        folder: folder.to_owned(),
        lifetime: Lifetime::Attached,
    }
}
