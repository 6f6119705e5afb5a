//! Log lines on standard output: JSON for machines, text for a terminal.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::exit;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for LogFormat {
    /// Text on a terminal, else JSON.
    fn default() -> Self {
        if std::io::stdout().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Starts logging; once a process. `RUST_LOG` filters, `info` where it is not set.
pub fn init(format: LogFormat) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter());
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}

fn filter() -> EnvFilter {
    let from_env = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).try_from_env();
    from_env.unwrap_or_else(|error| match std::env::var_os(EnvFilter::DEFAULT_ENV) {
        Some(value) if !value.is_empty() => {
            exit::over_settings(format_args!("RUST_LOG cannot be {value:?}: {error}"))
        }
        _ => EnvFilter::default().add_directive(LevelFilter::INFO.into()),
    })
}
