//! Log lines on standard output: JSON for machines, text for a terminal.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::exit;
use crate::traces::{TraceSettings, Traces};

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl Default for LogFormat {
    /// Text on a terminal, otherwise JSON.
    fn default() -> Self {
        if std::io::stdout().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Log lines without `RUST_LOG`. Libraries of PostgreSQL report each connection at `info`.
const DEFAULT_FILTER: &str = "info,refinery_core=warn,tokio_postgres=warn";

/// Starts logging, and tracing if it is configured. Call it once per process. `RUST_LOG` filters log lines, and
/// the default is `info`. Keep the returned value until the process ends.
#[must_use]
pub fn init(format: LogFormat, service: &'static str, traces: &TraceSettings) -> Traces {
    let (subscriber, traces) = subscriber(format, filter(), service, traces);
    subscriber.init();
    traces
}

fn subscriber(
    format: LogFormat,
    filter: EnvFilter,
    service: &'static str,
    traces: &TraceSettings,
) -> (impl Subscriber + Send + Sync + use<>, Traces) {
    let lines = match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Text => fmt::layer().with_filter(filter).boxed(),
    };
    let (spans, traces) = traces.start(service);
    (tracing_subscriber::registry().with(spans).with(lines), traces)
}

fn filter() -> EnvFilter {
    let from_env = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).try_from_env();
    from_env.unwrap_or_else(|error| match std::env::var_os(EnvFilter::DEFAULT_ENV) {
        Some(value) if !value.is_empty() => {
            exit::exit_invalid_settings(format_args!("RUST_LOG cannot be {value:?}: {error}"))
        }
        _ => EnvFilter::new(DEFAULT_FILTER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_disabled_without_a_collector() {
        let (info, nowhere) = (EnvFilter::new("info"), TraceSettings::default());
        let (subscriber, _traces) = subscriber(LogFormat::Json, info, "test", &nowhere);
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(LevelFilter::current(), LevelFilter::INFO);
        });
    }
}
