//! Traces, as an OpenTelemetry collector receives them from a node.

use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::fixture::{TestNode, shared_redis};
use crate::process::{LIMIT, RunningNode};

/// The trace of the client's request, and the client's own span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// Receives traces from nodes.
struct Collector {
    endpoint: String,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start() -> Self {
        let received: Arc<Mutex<Vec<Value>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::clone(&received);
        let take = async move |Json(traces): Json<Value>| taken.lock().unwrap().push(traces);
        tokio::spawn(async { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
        Self { endpoint, received }
    }

    /// Returns the spans of the client's trace.
    fn spans(&self) -> Vec<Value> {
        let received = self.received.lock().unwrap();
        let under = |value: &Value, key| value[key].as_array().cloned().unwrap_or_default();
        let resources = received.iter().flat_map(|traces| under(traces, "resourceSpans"));
        let scopes = resources.flat_map(|resource| under(&resource, "scopeSpans"));
        let spans = scopes.flat_map(|scope| under(&scope, "spans"));
        spans.filter(|span| span["traceId"] == TRACE).collect()
    }
}

/// Returns an attribute of a span as text.
fn attribute(span: &Value, key: &str) -> String {
    let attributes = span["attributes"].as_array().unwrap();
    let attribute = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = attribute.map_or(&Value::Null, |attribute| &attribute["value"]);
    let value = value.as_object().and_then(|value| value.values().next()).cloned().unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[tokio::test]
async fn purchase_trace_reaches_from_client_to_redis() {
    // Given a node with a collector, and a sale.
    let (test_node, collector) = (TestNode::selling(1).await, Collector::start().await);
    let node = RunningNode::with_env(
        &shared_redis().await.seeds(),
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
    );
    node.wait_for_status("/readyz", 200).await;

    // When a client with a trace buys, and the node ends.
    let url = node.url(&format!("/api/sales/{}/purchase", test_node.sale));
    let body = serde_json::json!({ "userId": "ann" });
    let request = reqwest::Client::new().post(url).json(&body);
    let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"));
    let answer = request.header("x-correlation-id", "basket-7").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    node.process.term();
    assert!(node.process.wait(LIMIT).await.unwrap().success());

    // Then the client's span contains the request, the request contains the wait in a lane, and the wait contains the
    // call.
    let spans = collector.spans();
    let inside = |parent: &str, name: &str| {
        let span = spans.iter().find(|span| span["parentSpanId"] == parent && span["name"] == name);
        span.unwrap_or_else(|| panic!("no {name} inside {parent} in {spans:#?}"))
    };
    let id = |span: &Value| span["spanId"].as_str().unwrap().to_owned();
    let request = inside(CLIENT_SPAN, "POST /api/sales/{sale}/purchase");
    let lane = inside(&id(request), "lane");
    let call = inside(&id(lane), "FCALL");
    assert_eq!(attribute(request, "http.response.status_code"), "200");
    assert_eq!(attribute(request, "correlation.id"), "basket-7");
    assert_eq!(attribute(call, "db.system.name"), "redis");
    assert_eq!(attribute(call, "db.operation.batch.size"), "1");
    assert!(!spans.iter().any(|span| span.to_string().contains("ann")), "no span names the user: {spans:#?}");
}
