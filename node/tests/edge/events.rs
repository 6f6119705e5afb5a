//! The status as it changes, for those who listen.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::timeout;

use crate::fixture::TestNode;

const SOON: Duration = Duration::from_secs(5);

/// What a listener hears, event by event.
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

    /// The next event as it came; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.received.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.received = rest;
                return Some(event);
            }
            let bytes = timeout(SOON, self.body.next()).await.expect("something is heard soon")?.unwrap();
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
async fn a_listener_hears_the_status_at_once_and_each_time_it_changes() {
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
async fn a_listener_is_told_when_to_come_back_and_the_stream_ends_when_the_node_does() {
    let node = TestNode::selling(3).await;
    let mut receiver = EventStream::on(&node, &format!("/api/sales/{}/events", node.sale)).await;
    let first = receiver.next().await.unwrap();
    let retry_ms: u32 = first.lines().find_map(|line| line.strip_prefix("retry: ")).unwrap().parse().unwrap();
    assert!((1_000..=3_000).contains(&retry_ms));

    node.state.close();

    while let Some(_last_words) = receiver.next().await {}
    // Whoever comes now is no worse off: a browser that is refused does not come back.
    let mut late = EventStream::on(&node, "/api/sale/events").await;
    assert!(late.next().await.unwrap().contains("retry: "));
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn whoever_comes_late_hears_what_time_it_is_then() {
    let node = TestNode::selling(3).await;
    EventStream::on(&node, "/api/sale/events").await.status().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = node.get("/api/sale/status").await.body["serverTime"].clone();
    let received = EventStream::on(&node, "/api/sale/events").await.status().await["serverTime"].clone();
    assert!(
        received.as_str().unwrap() >= before.as_str().unwrap(),
        "received {received}, after it was {before}"
    );
}

#[tokio::test]
async fn there_are_so_many_places_for_listeners_and_a_place_that_is_left_is_free() {
    let node = TestNode::set(&["--event-listeners-max", "2"]).await;
    let first = EventStream::on(&node, "/api/sale/events").await;
    let _second = EventStream::on(&node, "/api/sale/events").await;
    let refused = timeout(SOON, node.get("/api/sale/events")).await.expect("a third listener is sent away");
    refused.is_problem(503);
    assert_eq!(refused.headers["retry-after"], "1");
    drop(first);
    EventStream::on(&node, "/api/sale/events").await;
}

#[tokio::test]
async fn nobody_listens_to_a_sale_that_there_is_not() {
    TestNode::selling(1).await.get("/api/sales/none/events").await.is_problem(404);
}
