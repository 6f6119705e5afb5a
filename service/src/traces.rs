//! Traces for an OpenTelemetry collector, if one is configured: what a request waited for, and how long.
//!
//! Spans have the level `debug`, so a process without a collector does not create them. With a collector a request is a
//! span, the wait in a lane is a span inside it, and the call to Redis is the innermost. The standard variables
//! `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` choose which traces are kept.

mod client;

use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use clap::Args;
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls::RootCertStore;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use self::client::CollectorClient;
use crate::exit;
use crate::https;
use crate::settings::ca_file::CaFile;

/// Path for traces below the collector's endpoint.
const TRACES_PATH: &str = "v1/traces";
const UNENCRYPTED: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE is set, but OTEL_EXPORTER_OTLP_ENDPOINT is not https://: \
                           nothing would be encrypted";
/// Longest time to export the last spans on shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where traces are sent.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceSettings {
    /// Where an OpenTelemetry collector receives traces over HTTP, as in https://collector.example:4318; without it no
    /// traces are sent. OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG choose which are kept, as in traceidratio and
    /// 0.01
    #[arg(long, env, value_parser = endpoint)]
    otel_exporter_otlp_endpoint: Option<String>,

    /// A file with CA certificates, as PEM, that an https:// collector is verified by instead of the system's
    #[arg(long, env, value_parser = CaFile::parse)]
    otel_exporter_otlp_certificate: Option<CaFile>,
}

fn endpoint(raw: &str) -> Result<String, String> {
    let url = raw.trim_end_matches('/');
    let is_valid = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri.host().is_some_and(|host| !host.is_empty())
    });
    match is_valid {
        true => Ok(url.to_owned()),
        false => Err("must be an address like https://collector.example:4318, or http:// without TLS".into()),
    }
}

/// Exports the last spans when it is dropped.
pub struct Traces(Option<SdkTracerProvider>);

impl Drop for Traces {
    fn drop(&mut self) {
        let Some(provider) = &self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

impl TraceSettings {
    /// Returns the layer that exports this process' spans, if a collector is configured. `name` is the name of the
    /// service.
    pub(crate) fn start<S>(&self, name: &'static str) -> (Option<impl Layer<S> + use<S>>, Traces)
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let exporter = self.exporter().unwrap_or_else(|error| exit::exit_invalid_settings(error));
        let Some(exporter) = exporter else { return (None, Traces(None)) };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(name)).build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(name)).with_location(false);
        let ours = filter_fn(is_traced).with_max_level_hint(LevelFilter::DEBUG);
        (Some(layer.with_filter(ours)), Traces(Some(provider)))
    }

    fn exporter(&self) -> Result<Option<SpanExporter>, String> {
        let endpoint = self.otel_exporter_otlp_endpoint.as_deref();
        let is_tls = endpoint.is_some_and(|endpoint| endpoint.starts_with("https://"));
        let authorities = match &self.otel_exporter_otlp_certificate {
            Some(_) if !is_tls => return Err(UNENCRYPTED.to_owned()),
            Some(file) => file.authorities.clone(),
            None if is_tls => system_authorities()?,
            None => RootCertStore::empty(),
        };
        let Some(endpoint) = endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(CollectorClient::new(authorities))
            .with_endpoint(format!("{endpoint}/{TRACES_PATH}"));
        let exporter = match std::env::var_os("OTEL_EXPORTER_OTLP_PROTOCOL") {
            Some(_) => exporter.build(),
            // The specification's default, which differs from the library's.
            None => exporter.with_protocol(Protocol::HttpBinary).build(),
        };
        exporter.map(Some).map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))
    }
}

fn system_authorities() -> Result<RootCertStore, String> {
    https::system_authorities().ok_or_else(|| {
        "OTEL_EXPORTER_OTLP_ENDPOINT: the system has no certificate authorities; \
         OTEL_EXPORTER_OTLP_CERTIFICATE names a file with them"
            .to_owned()
    })
}

fn resource(name: &'static str) -> Resource {
    match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => Resource::builder().build(),
        None => Resource::builder().with_service_name(name).build(),
    }
}

/// Returns true for this workspace's own spans, and for warnings and errors inside them.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    match metadata.is_span() {
        true => *metadata.level() <= Level::DEBUG && is_ours(metadata.target()),
        false => *metadata.level() <= Level::WARN,
    }
}

fn is_ours(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    ["service", "node", "coordinator", "ledger"].contains(&name)
}

/// Makes a span part of the trace that the client sent in its headers.
pub(crate) fn set_parent(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    // Fails without a collector, where the span exists only for logs and cannot have a parent.
    let _is_traced = span.set_parent(parent);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|key| key.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_endpoint_must_be_an_http_url() {
        assert_eq!(endpoint("http://127.0.0.1:4318/"), Ok("http://127.0.0.1:4318".into()));
        assert_eq!(endpoint("https://collector.example/otlp"), Ok("https://collector.example/otlp".into()));
        for bad in [
            "",
            "127.0.0.1:4318",
            "http://",
            "https://",
            "grpc://collector:4317",
            "http://a b",
            "/v1",
            "http://a?b",
        ] {
            assert!(endpoint(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn certificate_needs_a_collector_with_tls() {
        let file = CaFile { path: "ca.crt".into(), authorities: RootCertStore::empty() };
        for endpoint in [None, Some("http://127.0.0.1:4318".to_owned())] {
            let settings = TraceSettings {
                otel_exporter_otlp_endpoint: endpoint,
                otel_exporter_otlp_certificate: Some(file.clone()),
            };
            assert_eq!(settings.exporter().err().as_deref(), Some(UNENCRYPTED));
        }
    }
}
