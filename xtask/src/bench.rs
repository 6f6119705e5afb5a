//! `cargo xtask bench`: measures the figures of `docs/performance.md` on this machine.
//!
//! Machines are shared and differ in speed. Speed is therefore reported as a ratio to a bare axum handler, measured
//! in alternating rounds on the same machine.

mod filling;
mod ledger;
mod memory;
mod speed;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    figure: Option<Figure>,
}

#[derive(Clone, Debug, Subcommand)]
enum Figure {
    /// Speed and cost of writing orders into PostgreSQL, and their effect on purchases.
    Ledger(ledger::Options),
    /// Redis memory per sold unit, in bytes.
    Memory(memory::Options),
    /// Requests per second and CPU time per purchase, compared with a bare axum handler.
    Speed(speed::Options),
}

/// Measures the chosen figure, or all figures when none is chosen.
pub(crate) async fn bench(options: Options) -> Result<()> {
    match options.figure {
        Some(Figure::Ledger(options)) => ledger::bench(options).await,
        Some(Figure::Memory(options)) => memory::bench(options).await,
        Some(Figure::Speed(options)) => speed::bench(options).await,
        None => {
            speed::bench(speed::Options::default()).await?;
            memory::bench(memory::Options::default()).await?;
            ledger::bench(ledger::Options::default()).await
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
