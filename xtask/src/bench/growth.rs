//! `bench growth`: the cost of a purchase while one thing grows, for `docs/performance/growth.md`.

mod axes;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum, value_parser};

use super::field::FieldPrograms;
use crate::install;
use report::Figures;

/// A thing that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AxisName {
    /// Shards of the sale.
    Shards,
    /// Primaries of the cluster, each with a replica.
    Primaries,
    /// Units of the sale.
    Stock,
    /// Part of the units that is sold.
    Sold,
    /// Open sales that the purchases are spread over.
    OpenSales,
    /// Ended sales beside the open one.
    EndedSales,
    /// Nodes.
    Nodes,
    /// Shards that are made when a sale of a million units is created.
    Creation,
    /// Open connections to a node.
    Connections,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Axes to measure, separated by commas; all, if not set.
    #[arg(long, value_delimiter = ',')]
    axis: Option<Vec<AxisName>>,
    /// Number of measurements at each value.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// The cargo profile that the programs are built with.
    #[arg(long, default_value = "release", value_parser = ["dev", "release"])]
    profile: String,
    /// Folder for figures, tables and plots; `docs/performance`, if not set.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

pub(super) async fn bench(options: Options) -> Result<()> {
    install::ensure_installed(&[install::REDIS, install::NGINX, install::WRK])?;
    let programs = FieldPrograms::build(&options.profile, false, None)?;
    let folder = options.folder.clone().unwrap_or_else(report::folder);
    let mut figures = Figures::read(&folder)?;
    let names = options.axis.clone().unwrap_or_else(|| AxisName::value_variants().into());
    say!("{} axes, {} rounds at each value; all axes take about 15 minutes", names.len(), options.rounds);
    for name in names {
        let began = Instant::now();
        let axis = axes::measure(name, &programs, &options).await?;
        say!("\n{}, measured in {:.0} s\n\n{}", axis.title, began.elapsed().as_secs_f64(), axis.table());
        let name = name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        figures.set(name, axis);
        figures.write(&folder)?;
    }
    say!("tables and plots: {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Growth {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn axes_are_chosen_by_name() {
        let parse = |axis| Growth::try_parse_from(["growth", "--axis", axis]);
        let chosen = parse("shards,open-sales").unwrap().options.axis;
        assert_eq!(chosen, Some(vec![AxisName::Shards, AxisName::OpenSales]));
        assert!(parse("height").unwrap_err().to_string().contains("[possible values: shards,"));
    }
}
