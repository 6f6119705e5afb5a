//! Traces for an OpenTelemetry collector, if one is configured: what a request waited for, and how long.
//!
//! Spans have the level `debug`, so a process without a collector does not create them. With a collector a request is a
//! span, the wait in a lane is a span inside it, and the call to Redis is the innermost. The standard variables
//! `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` choose which traces are kept.

use std::time::Duration;

use axum::http::HeaderMap;
use clap::Args;
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::exit;

/// Path for traces below the collector's endpoint.
const TRACES_PATH: &str = "v1/traces";
/// Longest time to export the last spans on shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where traces are sent.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceSettings {
    /// Where an OpenTelemetry collector receives traces over HTTP, as in http://127.0.0.1:4318; without it no traces
    /// are sent. OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG choose which are kept, as in traceidratio and 0.01
    #[arg(long, env, value_parser = endpoint)]
    otel_exporter_otlp_endpoint: Option<String>,
}

fn endpoint(raw: &str) -> Result<String, String> {
    let url = raw.trim_end_matches('/');
    match url.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(url.to_owned()),
        _ => Err("must be an http:// address; a collector beside the process does TLS".into()),
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
        let Some(endpoint) = &self.otel_exporter_otlp_endpoint else { return (None, Traces(None)) };
        let exporter = exporter(endpoint).unwrap_or_else(|error| {
            exit::exit_invalid_settings(format_args!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))
        });
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(name)).build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(name)).with_location(false);
        let ours = filter_fn(is_traced).with_max_level_hint(LevelFilter::DEBUG);
        (Some(layer.with_filter(ours)), Traces(Some(provider)))
    }
}

fn exporter(endpoint: &str) -> Result<SpanExporter, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(format!("{endpoint}/{TRACES_PATH}"));
    match std::env::var_os("OTEL_EXPORTER_OTLP_PROTOCOL") {
        Some(_) => exporter.build(),
        // The specification's default, which differs from the library's.
        None => exporter.with_protocol(Protocol::HttpBinary).build(),
    }
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
    ["service", "node", "coordinator"].contains(&name)
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
    fn trace_endpoint_must_be_a_plain_http_url() {
        assert_eq!(endpoint("http://127.0.0.1:4318/"), Ok("http://127.0.0.1:4318".into()));
        for bad in ["", "127.0.0.1:4318", "http://", "https://collector:4318", "http://a b"] {
            assert!(endpoint(bad).is_err(), "{bad:?} was taken");
        }
    }
}
