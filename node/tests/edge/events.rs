//! Event streams of a sale's status.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use serde_json::Value;
use service::serve::Peer;
use testkit::until;
use tokio::time::timeout;

use crate::fixture::TestNode;

const SOON: Duration = Duration::from_secs(5);

/// Reads a stream event by event.
struct EventStream {
    body: axum::body::BodyDataStream,
    received: String,
}

impl EventStream {
    async fn on(node: &TestNode, path: &str) -> Self {
        let response = node.respond(Request::get(path).header("last-event-id", "anything\u{fffd}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { body: Body::into_data_stream(response.into_body()), received: String::new() }
    }

    /// Returns the next event as it came, or `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.received.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.received = rest;
                return Some(event);
            }
            let bytes = timeout(SOON, self.body.next()).await.expect("an event arrives soon")?.unwrap();
            self.received.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    async fn status(&mut self) -> Value {
        let event = self.next().await.unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        assert!(event.contains("event: status"), "{event}");
        serde_json::from_str(data).unwrap()
    }
}

#[tokio::test]
async fn stream_sends_the_status_and_each_change() {
    let node = TestNode::selling(3).await;
    let mut receiver = EventStream::on(&node, "/api/sale/events").await;
    let mut status = receiver.status().await;
    assert_eq!((&status["remainingStock"], &status["status"]), (&3.into(), &"active".into()));
    for user in ["ann", "bob", "cid"] {
        assert_eq!(node.buy("/api/sale/purchase", user).await.status, 200);
    }
    while status["soldOut"] != true {
        status = receiver.status().await;
    }
    assert_eq!(status["remainingStock"], 0);
    assert_eq!(status["saleId"], node.sale.as_str());
}

#[tokio::test]
async fn stream_sends_retry_and_ends_on_close() {
    let node = TestNode::selling(3).await;
    let mut receiver = EventStream::on(&node, &format!("/api/sales/{}/events", node.sale)).await;
    let first = receiver.next().await.unwrap();
    let retry_ms: u32 = first.lines().find_map(|line| line.strip_prefix("retry: ")).unwrap().parse().unwrap();
    assert!((1_000..=3_000).contains(&retry_ms));

    node.state.close();

    while let Some(_remaining) = receiver.next().await {}
    // Later clients also get a stream that ends, because a browser does not retry after a refusal.
    let mut late = EventStream::on(&node, "/api/sale/events").await;
    assert!(late.next().await.unwrap().contains("retry: "));
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn late_listener_gets_the_current_time() {
    let node = TestNode::selling(3).await;
    let first = time_of(EventStream::on(&node, "/api/sale/events").await.status().await);
    let now = async || time_of(node.get("/api/sale/status").await.body);
    until("time goes on", SOON, async || now().await > first).await.unwrap();
    let before = now().await;
    let received = time_of(EventStream::on(&node, "/api/sale/events").await.status().await);
    assert!(received >= before, "received {received}, after it was {before}");
}

fn time_of(status: Value) -> String {
    status["serverTime"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn number_of_listeners_is_limited() {
    let node = TestNode::with_flags(&["--event-listeners-max", "2"]).await;
    let first = EventStream::on(&node, "/api/sale/events").await;
    let _second = EventStream::on(&node, "/api/sale/events").await;
    let refused = timeout(SOON, node.get("/api/sale/events")).await.expect("a third listener is refused");
    refused.assert_problem(503);
    assert_eq!(refused.headers["retry-after"], "1");
    drop(first);
    EventStream::on(&node, "/api/sale/events").await;
}

#[tokio::test]
async fn one_network_gets_a_share_of_listeners() {
    let flags = [
        "--event-listeners-max",
        "32",
        "--trusted-proxies",
        "10.0.0.0/8",
        "--rate-limit-exempt",
        "192.0.2.9",
    ];
    let node = TestNode::with_flags(&flags).await;
    let listen = async |client: &str| {
        let proxy = Peer("10.0.0.1:80".parse().unwrap());
        let request = Request::get("/api/sale/events").extension(proxy).header("x-forwarded-for", client);
        node.respond(request).await
    };
    // A sixteenth of 32.
    let _held = [listen("2001:db8::1").await, listen("2001:db8::2").await];

    let refused = listen("2001:db8::3").await;

    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(listen("192.0.2.7").await.status(), 200, "another network");
    for _ in 0..3 {
        assert_eq!(listen("192.0.2.9").await.status(), 200, "an exempt network");
    }
}

#[tokio::test]
async fn events_of_an_unknown_sale_are_not_found() {
    TestNode::selling(1).await.get("/api/sales/none/events").await.assert_problem(404);
}
