//! A substitute for a node: it sends configured answers and records the requests.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use testkit::ports::loopback;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

/// A fake node with the headers of every request it received.
pub(crate) struct FakeNode {
    pub(crate) addr: SocketAddr,
    requests: Arc<Mutex<Vec<HeaderMap>>>,
}

impl FakeNode {
    /// Answers the requests with these statuses in turn and repeats the last one. A 503 has `Retry-After`.
    pub(crate) async fn answering(statuses: &[u16]) -> Self {
        Self::answering_at(loopback(0), statuses).await
    }

    /// Does the same on a given address.
    pub(crate) async fn answering_at(addr: SocketAddr, statuses: &[u16]) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (recorded, statuses) = (requests.clone(), statuses.to_vec());
        let answer = async move |request: Request| {
            let mut requests = recorded.lock().unwrap();
            let status = statuses[requests.len().min(statuses.len() - 1)];
            requests.push(request.headers().clone());
            (
                StatusCode::from_u16(status).unwrap(),
                [("retry-after", "0")],
                r#"{"success":true,"orderId":"o-1"}"#,
            )
                .into_response()
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        Self { addr, requests }
    }

    /// Reads each request and closes the connection without an answer, as a node does that dies in between.
    pub(crate) async fn closing_each_connection() -> Self {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = requests.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let headers = read_headers(connection).await;
                recorded.lock().unwrap().push(headers);
            }
        });
        Self { addr, requests }
    }

    /// The values of one header, one per request.
    pub(crate) fn header_values(&self, header: &str) -> Vec<Option<String>> {
        let value = |headers: &HeaderMap| Some(headers.get(header)?.to_str().unwrap().to_owned());
        self.requests.lock().unwrap().iter().map(value).collect()
    }
}

async fn read_headers(mut connection: TcpStream) -> HeaderMap {
    let mut request = vec![0; 4096];
    let length = connection.read(&mut request).await.unwrap();
    let text = String::from_utf8_lossy(&request[..length]).into_owned();
    let pairs = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    pairs.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).fold(
        HeaderMap::new(),
        |mut headers, (name, value): (axum::http::HeaderName, _)| {
            headers.insert(name, value);
            headers
        },
    )
}
