//! `cargo xtask bench`: measures the figures of `docs/performance.md` on this machine.
//!
//! Machines are shared and differ in speed. Speed is therefore reported as a ratio to a bare axum handler, measured
//! in alternating rounds on the same machine.

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
    /// Redis memory per sold unit, in bytes.
    Memory(memory::Options),
    /// Requests per second and CPU time per purchase, compared with a bare axum handler.
    Speed(speed::Options),
}

/// Measures the chosen figure, or all figures when none is chosen.
pub(crate) async fn bench(options: Options) -> Result<()> {
    match options.figure {
        Some(Figure::Memory(options)) => memory::bench(options).await,
        Some(Figure::Speed(options)) => speed::bench(options).await,
        None => {
            speed::bench(speed::Options::default()).await?;
            memory::bench(memory::Options::default()).await
        }
    }
}
