//! `bench quick`: the guard against a purchase that costs much more than before. A step of `cargo xtask test`.
//!
//! It compares ratios to the bare handler, and counts of calls, with bounds. Programs are those that the tests build.
//! docs/performance.md says how the bounds were chosen.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, value_parser};

use super::comparison::{Spread, ratios};
use super::field::{Field, FieldPrograms, Row, Sample};
use super::wrk::Connections;
use crate::install;

const ROWS: [Row; 5] = [Row::Bare, Row::Purchase, Row::AlreadyPurchased, Row::SoldOut, Row::Status];
const CONNECTIONS: Connections = Connections::open(256);

/// A figure of a row and the highest median that passes.
struct Bound {
    row: Row,
    figure: Figure,
    max: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// CPU time of the node, in bare handlers.
    Node,
    /// CPU time of all Redis servers, in bare handlers.
    Redis,
    /// Calls of functions in Redis.
    Calls,
}

/// Bounds of CPU time are about twice the highest median that a busy machine had, because a scheduler that interrupts
/// the node between requests makes batches smaller and every request dearer. The bound of calls lies between the
/// highest count on such a machine, 0.14, and the one call of each request that is counted in Redis, or buys alone.
const BOUNDS: [Bound; 7] = [
    Bound { row: Row::Purchase, figure: Figure::Node, max: 9.0 },
    Bound { row: Row::Purchase, figure: Figure::Redis, max: 9.0 },
    Bound { row: Row::Purchase, figure: Figure::Calls, max: 0.6 },
    Bound { row: Row::AlreadyPurchased, figure: Figure::Calls, max: 0.6 },
    Bound { row: Row::SoldOut, figure: Figure::Node, max: 9.0 },
    Bound { row: Row::SoldOut, figure: Figure::Calls, max: 0.6 },
    Bound { row: Row::Status, figure: Figure::Node, max: 9.0 },
];

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Number of measurements of each row, in turn.
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
}

pub(super) async fn bench(options: Options) -> Result<()> {
    install::ensure_installed(&[install::REDIS, install::NGINX, install::WRK])?;
    let programs = FieldPrograms::build(testkit::BuildProfile::of_this_program()?.name(), false, None)?;
    let field = Field::start(&programs).await?;
    let (mut samples, duration) = (Vec::new(), Duration::from_secs(options.seconds));
    for round in 0..options.rounds as usize {
        for row in ROWS {
            samples.push(field.measure(row, CONNECTIONS, round, duration, None).await?);
        }
    }
    field.stop().await?;
    verdict(&samples)
}

/// Prints each figure next to its bound.
fn verdict(samples: &[Sample]) -> Result<()> {
    say!("{:18} {:24} {:24} {:>6}", "", "", "median (lowest-highest)", "bound");
    let mut exceeded = 0;
    for Bound { row, figure, max } in BOUNDS {
        let spread = figure.of(samples, row).with_context(|| format!("{} was not measured", row.name()))?;
        let passes = spread.median <= max;
        exceeded += usize::from(!passes);
        let mark = if passes { "" } else { "  EXCEEDED" };
        say!("{:18} {:24} {:24} {max:6.2}{mark}", row.name(), figure.name(), Spread::text(Some(spread)));
    }
    if exceeded > 0 {
        bail!("{exceeded} figures are above their bounds; `cargo xtask bench` has the whole table");
    }
    Ok(())
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node, in bare handlers",
            Self::Redis => "Redis, in bare handlers",
            Self::Calls => "calls a request",
        }
    }

    fn of(self, samples: &[Sample], row: Row) -> Option<Spread> {
        let in_bare = |part: fn(&Sample) -> f64| {
            // The bare handler's own time in the place of each part.
            let of_bare = move |sample: &Sample| {
                if sample.row == Row::Bare { sample.cpu_us.server } else { part(sample) }
            };
            ratios(samples, row, Row::Bare, of_bare)
        };
        match self {
            Self::Node => in_bare(|sample| sample.cpu_us.server),
            Self::Redis => in_bare(|sample| sample.cpu_us.redis()),
            Self::Calls => {
                Spread::of(samples.iter().filter(|sample| sample.row == row).map(|sample| sample.calls))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::meter::CpuTime;

    /// Samples of one round, in which a purchase makes this number of calls.
    fn samples(calls: f64) -> Vec<Sample> {
        let sample = |row| Sample {
            row,
            connections: 256,
            closing: false,
            round: 0,
            requests: 1.0,
            requests_per_second: 1.0,
            p99_ms: 1.0,
            cpu_us: CpuTime { server: 10.0, primaries: 10.0, replicas: 5.0, others: 0.0 },
            calls: if row == Row::Purchase { calls } else { 0.0 },
        };
        ROWS.map(sample).into()
    }

    #[test]
    fn figures_are_in_bare_handlers() {
        let median = |figure: Figure| figure.of(&samples(0.1), Row::Purchase).unwrap().median;
        assert_eq!(median(Figure::Node), 1.0);
        assert_eq!(median(Figure::Redis), 1.5);
        assert_eq!(median(Figure::Calls), 0.1);
    }

    #[test]
    fn verdict_fails_when_every_purchase_makes_a_call_of_its_own() {
        assert!(verdict(&samples(0.1)).is_ok());
        assert!(verdict(&samples(1.0)).unwrap_err().to_string().contains("1 figures are above"));
        assert!(verdict(&[]).is_err());
    }
}
