//! `cargo xtask bench`: measures the figures of `docs/performance.md` on this machine.
//!
//! Machines are shared and differ in speed. Speed is therefore reported as a ratio to a bare axum handler, measured
//! in alternating rounds on the same machine.

mod buy_calls;
mod comparison;
mod field;
mod filling;
mod growth;
mod ledger;
mod memory;
mod meter;
mod quick;
mod speed;
mod table;
mod wrk;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::interruption::Interruption;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    figure: Option<Figure>,
    #[command(flatten)]
    table: table::Options,
}

#[derive(Clone, Debug, Subcommand)]
enum Figure {
    /// Cost of a purchase while shards, primaries, stock, sales or nodes grow.
    Growth(growth::Options),
    /// Speed and cost of writing orders into PostgreSQL, and their effect on purchases.
    Ledger(ledger::Options),
    /// Redis memory per sold unit, in bytes.
    Memory(memory::Options),
    /// Guard of a minute: fails when a purchase costs much more than it should.
    Quick(quick::Options),
    /// Requests per second and CPU time of a purchase: two rows of the table, at 256 connections.
    Speed(speed::Options),
}

/// Measures the chosen figure. Without one, compares all kinds of requests with a bare axum handler.
pub(crate) async fn bench(options: Options) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    let measured = async {
        match options.figure {
            Some(Figure::Growth(options)) => growth::bench(options).await,
            Some(Figure::Ledger(options)) => ledger::bench(options).await,
            Some(Figure::Memory(options)) => memory::bench(options).await,
            Some(Figure::Quick(options)) => quick::bench(options).await,
            Some(Figure::Speed(options)) => speed::bench(options).await,
            None => table::bench(options.table).await,
        }
    };
    tokio::select! {
        measured = measured => measured,
        () = interruption.received() => bail!("interrupted; nothing is left running"),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Bench {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn table_is_measured_when_no_figure_is_named() {
        let parse = |arguments: &[&str]| Bench::try_parse_from([&["bench"], arguments].concat());
        assert!(parse(&["--rounds", "1"]).unwrap().options.figure.is_none());
        assert!(matches!(parse(&["quick"]).unwrap().options.figure, Some(Figure::Quick(_))));
        assert!(parse(&["--rounds", "1", "quick"]).is_err());
    }
}
