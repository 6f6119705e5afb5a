//! `bench speed`: the short form of the table, for a change of the path of a purchase.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, value_parser};

use super::table;

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// Number of measurements of each program, in alternating order.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// A second node program to measure in the same rounds, for example a build of the previous commit.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
}

pub(super) async fn bench(Options { seconds, rounds, against }: Options) -> Result<()> {
    table::bench(table::Options::short(rounds, seconds, against)).await
}
