//! `cargo xtask bench`: the figures of the README, measured here.
//!
//! Machines are shared and differ, so speed is given as a ratio against a bare axum handler that runs in the
//! same minutes on the same machine, round by round.

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
    /// Bytes of Redis memory a unit sold takes.
    Memory(memory::Options),
    /// Requests a second and CPU time a purchase, beside a bare axum handler.
    Speed(speed::Options),
}

/// Measures one figure, or all.
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
