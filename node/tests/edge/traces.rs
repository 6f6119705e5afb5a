//! Traces, as an OpenTelemetry collector receives them from a node.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::serve::Listener;
use axum::{Json, Router};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use testkit::Folder;
use testkit::security::make_certificates;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
        let received = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, receiver(Arc::clone(&received))).into_future());
        Self { endpoint, received }
    }

    /// Starts a collector that receives over TLS, with the certificate of this folder for `localhost`.
    async fn start_with_tls(folder: &Path) -> Self {
        let received = Arc::default();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", tcp.local_addr().unwrap().port());
        let chain = CertificateDer::pem_file_iter(folder.join("tls.crt")).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TlsListener { tcp, acceptor: Arc::new(config).into() };
        tokio::spawn(axum::serve(listener, receiver(Arc::clone(&received))).into_future());
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

fn receiver(received: Arc<Mutex<Vec<Value>>>) -> Router {
    let take = async move |Json(traces): Json<Value>| received.lock().unwrap().push(traces);
    Router::new().route("/v1/traces", post(take))
}

/// Accepts connections with TLS, and drops those whose handshake fails.
struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, addr) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, addr);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
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

#[tokio::test]
async fn traces_go_only_to_a_collector_with_a_valid_certificate() {
    // Given a collector with TLS, and another authority that has not signed its certificate.
    let (folder, other) = (Folder::temporary().unwrap(), Folder::temporary().unwrap());
    make_certificates(folder.path(), "localhost").unwrap();
    make_certificates(other.path(), "localhost").unwrap();
    let collector = Collector::start_with_tls(folder.path()).await;
    let by_address = collector.endpoint.replace("localhost", "127.0.0.1");
    let send = async |endpoint: &str, authority: Option<&Folder>| {
        let ca = authority.map(|folder| folder.path().join("ca.crt").display().to_string());
        let mut settings =
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
        settings.extend(ca.as_deref().map(|ca| ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)));
        let node = RunningNode::with_env(&shared_redis().await.seeds(), &settings);
        node.wait_for_status("/readyz", 200).await;
        let request = reqwest::Client::new().get(node.url("/api/csrf"));
        let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"));
        assert_eq!(request.send().await.unwrap().status(), 200);
        node.process.term();
        assert!(node.process.wait(LIMIT).await.unwrap().success());
        node.process.log_tail()
    };

    // Then traces do not go to one whose authority is unknown, or whose certificate has another name.
    for (endpoint, authority, reason) in [
        (&collector.endpoint, Some(&other), "UnknownIssuer"),
        (&collector.endpoint, None, "UnknownIssuer"),
        (&by_address, Some(&folder), "not valid for name"),
    ] {
        let log = send(endpoint, authority).await;
        assert!(collector.spans().is_empty(), "{endpoint} got traces");
        assert!(log.contains("traces cannot be sent") && log.contains(reason), "{endpoint}: {log}");
    }
    // And they go to the one that is verified.
    let log = send(&collector.endpoint, Some(&folder)).await;
    assert!(collector.spans().iter().any(|span| span["parentSpanId"] == CLIENT_SPAN), "no span: {log}");
}
