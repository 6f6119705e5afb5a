//! `cargo xtask bench` without a figure: all kinds of requests, compared with a bare axum handler.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;
use testkit::workspace_root;

use super::buy_calls::{self, CallSample};
use super::comparison::{Spread, say_header, say_rows};
use super::field::{Field, FieldPrograms, Row, SHARDS, Sample};
use super::wrk::Connections;
use crate::install;

/// Time between two measurements.
const PAUSE: Duration = Duration::from_millis(300);
/// Time that a start of all systems takes.
const START: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Args)]
#[group(id = "table")]
pub(crate) struct Options {
    /// Rows to measure, separated by commas; all, if not set. `bare` is always among them.
    #[arg(long, value_delimiter = ',')]
    rows: Option<Vec<Row>>,
    /// Numbers of connections, separated by commas. `closing` is 256 connections that close after 25 requests.
    #[arg(long, value_delimiter = ',', default_value = "64,256,1000,closing")]
    connections: Vec<Connections>,
    /// Number of measurements of each row, in turn.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// A second node program to measure in the same rounds, for example a build of the previous commit.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// The cargo profile that the programs are built with.
    #[arg(long, default_value = "release", value_parser = ["dev", "release"])]
    profile: String,
    /// Leave out the rows of `FCALL buy` without a node.
    #[arg(long)]
    no_calls: bool,
    /// File for the figures of each measurement.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// All measurements of a run, as they are stored.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measurements {
    requests: Vec<Sample>,
    buy_calls: Vec<CallSample>,
}

impl Options {
    /// The short form: a purchase and the bare handler at 256 connections, and another node program if one is named.
    pub(super) fn short(rounds: u32, seconds: u64, against: Option<PathBuf>) -> Self {
        let rows = Some(vec![Row::Bare, Row::Purchase]);
        let connections = vec![Connections::open(256)];
        Self {
            rows,
            connections,
            rounds,
            seconds,
            against,
            profile: "release".into(),
            no_calls: true,
            json: None,
        }
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let all = Row::value_variants().iter().copied().filter(|&row| row != Row::Against);
        let mut rows = self.rows.clone().unwrap_or_else(|| all.collect());
        if rows.contains(&Row::Against) && self.against.is_none() {
            bail!("the row `against` needs `--against`");
        }
        rows.extend(self.against.is_some().then_some(Row::Against));
        rows.extend(rows.clone().into_iter().map(Row::base));
        rows.sort();
        rows.dedup();
        Ok(rows)
    }

    fn json(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| workspace_root().join(".local/bench/table.json"))
    }

    fn length(&self, rows: usize) -> Duration {
        let measurements = self.connections.len() * rows * self.rounds as usize;
        let measuring =
            (Duration::from_secs(self.seconds) + PAUSE) * u32::try_from(measurements).unwrap_or(u32::MAX);
        let calls = if self.no_calls { Duration::ZERO } else { buy_calls::length(self.rounds) };
        measuring + START * u32::try_from(self.connections.len()).unwrap_or(u32::MAX) + calls
    }
}

pub(super) async fn bench(options: Options) -> Result<()> {
    let rows = options.rows()?;
    install::ensure_installed(&[install::REDIS, install::NGINX, install::WRK])?;
    let file = options.json();
    std::fs::create_dir_all(file.parent().context("the file has a folder")?)?;
    let mut json = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    let programs =
        FieldPrograms::build(&options.profile, rows.contains(&Row::Classic), options.against.clone())?;
    let (length, began) = (options.length(rows.len()), Instant::now());
    say!(
        "{} rounds of {} s for each row, in turn, {SHARDS} shards on 3 primaries + 3 replicas, AOF always, one node.\n\
         This takes about {:.0} minutes.",
        options.rounds,
        options.seconds,
        length.as_secs_f64() / 60.0
    );
    let mut measurements = Measurements::default();
    for &connections in &options.connections {
        let load = measure_load(&options, &rows, connections, &programs).await?;
        let left = length.saturating_sub(began.elapsed()).as_secs_f64() / 60.0;
        say!("{} are measured; about {left:.0} minutes left", connections.name());
        measurements.requests.extend(load);
    }
    if !options.no_calls {
        measurements.buy_calls = buy_calls::measure(&programs.programs, options.rounds).await?;
    }
    say!("");
    say_header();
    for &connections in &options.connections {
        let samples = measurements.requests.iter().filter(|sample| {
            (sample.connections, sample.closing) == (connections.count, connections.closing)
        });
        say_rows(&samples.cloned().collect::<Vec<_>>(), connections);
    }
    buy_calls::say_rows(&measurements.buy_calls);
    serde_json::to_writer(&mut json, &measurements)?;
    say!("\neach measurement: {}", file.display());
    Ok(())
}

/// Measures all rows at this number of connections. Each number has systems of its own, so that memory stays small.
async fn measure_load(
    options: &Options,
    rows: &[Row],
    connections: Connections,
    programs: &FieldPrograms,
) -> Result<Vec<Sample>> {
    let field = Field::start(programs).await?;
    let (mut samples, duration) = (Vec::new(), Duration::from_secs(options.seconds));
    for round in 0..options.rounds as usize {
        for &row in rows {
            let rate = match row {
                // Connections of steady load do not close.
                Row::SteadyBare | Row::SteadyPurchase if connections.closing => continue,
                Row::SteadyBare | Row::SteadyPurchase => {
                    Some(half_of_peak(&field, &samples, connections).await?)
                }
                _ => None,
            };
            samples.push(field.measure(row, connections, round, duration, rate).await?);
            tokio::time::sleep(PAUSE).await;
        }
    }
    let sold = field.stop().await?;
    say!("audit: ok, {sold} sold");
    Ok(samples)
}

/// Half of the rate at which purchases were answered; measured, unless it was.
async fn half_of_peak(field: &Field, samples: &[Sample], connections: Connections) -> Result<u32> {
    let peaks = samples.iter().filter(|sample| sample.row == Row::Purchase);
    let peak = match Spread::of(peaks.map(|sample| sample.requests_per_second)) {
        Some(peaks) => peaks.median,
        None => {
            let peak =
                field.measure(Row::Purchase, connections, usize::MAX, Duration::from_secs(2), None).await?;
            peak.requests_per_second
        }
    };
    Ok((peak / 2.0) as u32)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Table {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn rows_include_those_that_they_are_divided_by() {
        let rows = |arguments: &[&str]| {
            Table::try_parse_from([&["table"], arguments].concat()).unwrap().options.rows()
        };
        assert_eq!(rows(&["--rows", "nginx"]).unwrap(), [Row::Bare, Row::Nginx]);
        assert_eq!(rows(&["--rows", "steady-purchase"]).unwrap(), [Row::SteadyBare, Row::SteadyPurchase]);
        assert!(!rows(&[]).unwrap().contains(&Row::Against));
        assert!(rows(&["--against", "x"]).unwrap().contains(&Row::Against));
        assert!(rows(&["--rows", "against"]).unwrap_err().to_string().contains("needs `--against`"));
    }

    #[test]
    fn bad_options_are_refused_before_anything_starts() {
        for (argument, value, word) in [
            ("--rows", "purchases", "[possible values: bare,"),
            ("--connections", "0", "neither a number of connections"),
            ("--rounds", "0", "0 is not in 1.."),
            ("--seconds", "0", "0 is not in 1.."),
        ] {
            let error = Table::try_parse_from(["table", argument, value]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn full_run_stays_below_25_minutes() {
        let options = Table::try_parse_from(["table"]).unwrap().options;
        assert!(options.length(options.rows().unwrap().len()) < Duration::from_mins(25));
    }
}
