//! Compares rows with the bare handler: within each round, so that a machine that becomes slower changes both.

use super::field::{Row, Sample};
use super::wrk::Connections;

/// Median, lowest and highest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Returns `None` for no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { median: values[values.len() / 2], min, max })
    }

    pub(super) fn text(spread: Option<Self>) -> String {
        spread
            .map_or_else(String::new, |Self { median, min, max }| format!("{median:.2} ({min:.2}-{max:.2})"))
    }
}

/// Returns the ratios of a figure between two rows, one for each round that has both.
pub(super) fn ratios(
    samples: &[Sample],
    row: Row,
    base: Row,
    figure: impl Fn(&Sample) -> f64,
) -> Option<Spread> {
    let of = |row| samples.iter().filter(move |sample| sample.row == row);
    let pairs =
        of(row).filter_map(|sample| Some((sample, of(base).find(|base| base.round == sample.round)?)));
    Spread::of(pairs.map(|(sample, base)| figure(sample) / figure(base)))
}

pub(super) fn say_header() {
    say!(
        "{:18} {:>9} {:>8} {:>7} {:>9} {:>8} {:>6} {:>6} {:>6}   {:18} {:18} {:18} {:18}",
        "",
        "requests",
        "p99",
        "server",
        "primaries",
        "replicas",
        "others",
        "all",
        "calls",
        "rate",
        "p99",
        "CPU of the server",
        "CPU of all"
    );
    say!(
        "{:18} {:>9} {:>8} {:>7} {:>9} {:>8} {:>6} {:>6} {:>6}   in bare handlers, median (lowest-highest)",
        "",
        "/s",
        "ms",
        "us",
        "us",
        "us",
        "us",
        "us",
        ""
    );
}

/// Prints the rows of one load.
pub(super) fn say_rows(samples: &[Sample], connections: Connections) {
    say!("{}:", connections.name());
    let mut rows: Vec<Row> = samples.iter().map(|sample| sample.row).collect();
    rows.sort();
    rows.dedup();
    for row in rows {
        let median = |figure: fn(&Sample) -> f64| {
            let values = samples.iter().filter(|sample| sample.row == row).map(figure);
            Spread::of(values).map_or(0.0, |spread| spread.median)
        };
        let ratio = |figure: fn(&Sample) -> f64| Spread::text(ratios(samples, row, row.base(), figure));
        say!(
            "{:18} {:9.0} {:8.2} {:7.1} {:9.1} {:8.1} {:6.1} {:6.1} {:6.3}   {:18} {:18} {:18} {:18}",
            row.name(),
            median(|sample| sample.requests_per_second),
            median(|sample| sample.p99_ms),
            median(|sample| sample.cpu_us.server),
            median(|sample| sample.cpu_us.primaries),
            median(|sample| sample.cpu_us.replicas),
            median(|sample| sample.cpu_us.others),
            median(|sample| sample.cpu_us.all()),
            median(|sample| sample.calls),
            ratio(|sample| sample.requests_per_second),
            ratio(|sample| sample.p99_ms),
            ratio(|sample| sample.cpu_us.server),
            ratio(|sample| sample.cpu_us.all()),
        );
    }
    if let Some(rate) = ratios(samples, Row::Purchase, Row::Against, |sample| sample.requests_per_second) {
        let server = ratios(samples, Row::Purchase, Row::Against, |sample| sample.cpu_us.server);
        let all = ratios(samples, Row::Purchase, Row::Against, |sample| sample.cpu_us.all());
        say!(
            "purchase / against: rate {}, CPU of the server {}, of all {}",
            Spread::text(Some(rate)),
            Spread::text(server),
            Spread::text(all)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::meter::CpuTime;

    fn sample(row: Row, round: usize, requests_per_second: f64) -> Sample {
        let cpu_us = CpuTime::default();
        let (connections, closing, requests, p99_ms, calls) = (64, false, 1.0, 1.0, 0.0);
        Sample { row, connections, closing, round, requests, requests_per_second, p99_ms, cpu_us, calls }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let samples = [
            sample(Row::Bare, 0, 100.0),
            sample(Row::Purchase, 0, 50.0),
            sample(Row::Bare, 1, 10.0),
            sample(Row::Purchase, 1, 4.0),
            sample(Row::Bare, 2, 10.0),
            sample(Row::Purchase, 3, 1.0),
        ];
        let spread = ratios(&samples, Row::Purchase, Row::Bare, |sample| sample.requests_per_second);
        assert_eq!(spread, Some(Spread { median: 0.5, min: 0.4, max: 0.5 }));
        assert_eq!(ratios(&samples, Row::Nginx, Row::Bare, |sample| sample.p99_ms), None);
    }
}
