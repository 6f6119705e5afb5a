//! The HTTP client of the exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

/// Longest time for one request. The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends traces to the collector, and logs when that starts to fail and when it works again. With `https://` it verifies
/// the certificate and the host name of the collector.
#[derive(Debug)]
pub(super) struct CollectorClient {
    client: HyperClient<HttpsConnector<HttpConnector>>,
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
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(authorities)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let client = HyperClient::new(connector, TIMEOUT, None);
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
