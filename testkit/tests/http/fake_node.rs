//! A stand-in for a node: answers what it is told to and remembers what it was asked.

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

/// Its address and the headers of every request it saw.
pub(crate) struct FakeNode {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl FakeNode {
    /// Answers every request with the next of these statuses, the last one again and again; 503 with `Retry-After`.
    pub(crate) async fn answering(statuses: &[u16]) -> Self {
        Self::answering_at(loopback(0), statuses).await
    }

    /// The same at this address.
    pub(crate) async fn answering_at(addr: SocketAddr, statuses: &[u16]) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (remembered, statuses) = (seen.clone(), statuses.to_vec());
        let answer = async move |request: Request| {
            let mut seen = remembered.lock().unwrap();
            let status = statuses[seen.len().min(statuses.len() - 1)];
            seen.push(request.headers().clone());
            (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")], r#"{"orderId":"o-1"}"#)
                .into_response()
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        Self { addr, seen }
    }

    /// Takes each request and hangs up without an answer, as a node does that dies in the middle.
    pub(crate) async fn dying_at_each_request() -> Self {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = seen.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let headers = read_headers(connection).await;
                remembered.lock().unwrap().push(headers);
            }
        });
        Self { addr, seen }
    }

    /// The values of one header, request by request.
    pub(crate) fn saw(&self, header: &str) -> Vec<Option<String>> {
        let value = |headers: &HeaderMap| Some(headers.get(header)?.to_str().unwrap().to_owned());
        self.seen.lock().unwrap().iter().map(value).collect()
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
