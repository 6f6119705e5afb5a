//! The HTTP client of the exporter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::RootCertStore;
use tokio::runtime::Handle;

use crate::https;

/// Longest time for one request. The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends traces to the collector, and logs when that starts to fail and when it works again. With `https://` it verifies
/// the certificate and the host name of the collector.
#[derive(Debug)]
pub(super) struct CollectorClient {
    client: HyperClient<https::Connector>,
    /// The exporter calls the client from a thread of its own, which has no runtime.
    runtime: Handle,
    is_failing: AtomicBool,
}

impl CollectorClient {
    /// Creates a client that trusts these authorities.
    ///
    /// # Panics
    /// When it is not called in a Tokio runtime.
    pub(super) fn new(authorities: RootCertStore) -> Self {
        let client = HyperClient::new(https::connector(authorities), TIMEOUT, None);
        Self { client, runtime: Handle::current(), is_failing: AtomicBool::new(false) }
    }

    fn log(&self, failure: Option<String>) {
        match (self.is_failing.swap(failure.is_some(), Ordering::Relaxed), failure) {
            (false, Some(error)) => tracing::warn!(error, "traces cannot be sent"),
            (true, None) => tracing::info!("traces are sent again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move { client.send_bytes(request).await }).await?;
        self.log(match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(with_causes(&**error)),
        });
        sent
    }
}

/// Returns an error with its causes, of which the last one names the reason.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
