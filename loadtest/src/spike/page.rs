//! The reports of a spike: percentiles and their plot, as a page and as text.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{
    WaitTimes,
    plot::{Curve, svg},
};
use crate::thresholds::millis;

const PERCENTILES: [(&str, f64); 7] = [
    ("50 %", 0.5),
    ("75 %", 0.75),
    ("90 %", 0.9),
    ("95 %", 0.95),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("100 %", 1.0),
];

/// Writes `spike.html` and the plot as a separate file.
pub(super) fn write(folder: &Path, waits: &WaitTimes) -> Result<()> {
    let plot = waits.plot();
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join("percentiles.svg"), &plot))
        .and_then(|()| fs::write(folder.join("spike.html"), waits.html(&plot)));
    written.with_context(|| format!("cannot write to {}", folder.display()))
}

impl WaitTimes {
    /// Returns the percentiles as aligned text.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{:>9}{:>14}{:>14}\n", "", "from arrival", "from sending");
        for [percentile, from_arrival, from_sending] in self.rows() {
            writeln!(text, "{percentile:>9}{from_arrival:>14}{from_sending:>14}").expect(IN_MEMORY);
        }
        text
    }

    fn plot(&self) -> String {
        svg(&[
            Curve { label: "from the buyer's arrival", color: "#c0392b", histogram: &self.from_arrival },
            Curve {
                label: "from the sending of the request",
                color: "#2980b9",
                histogram: &self.from_sending,
            },
        ])
    }

    fn html(&self, plot: &str) -> String {
        let (buyers, rate, mut rows) = (self.from_arrival.len(), self.rate, String::new());
        for [percentile, from_arrival, from_sending] in self.rows() {
            writeln!(rows, "<tr><th>{percentile}</th><td>{from_arrival}</td><td>{from_sending}</td></tr>")
                .expect(IN_MEMORY);
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Spike</title>\n\
             <style>body {{ font-family: sans-serif; max-width: 60em; margin: 2em auto }} \
             th, td {{ text-align: right; padding: .2em 1em }}</style>\n\
             <h1>{buyers} buyers, {rate} a second</h1>\n\
             <p>They arrive at this rate, however long the answers take. Latency counts from a buyer's arrival.</p>\n\
             {plot}<table>\n<tr><th></th><th>from arrival</th><th>from sending</th></tr>\n{rows}</table>\n</html>\n"
        )
    }

    fn rows(&self) -> impl Iterator<Item = [String; 3]> {
        PERCENTILES.iter().map(|(label, quantile)| {
            let wait = |histogram: &hdrhistogram::Histogram<u64>| {
                millis(Duration::from_micros(histogram.value_at_quantile(*quantile)))
            };
            [(*label).to_owned(), wait(&self.from_arrival), wait(&self.from_sending)]
        })
    }
}

const IN_MEMORY: &str = "writing to a String cannot fail";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    fn waits() -> WaitTimes {
        let (mut from_arrival, mut from_sending) = (histogram(), histogram());
        (1..=100).for_each(|ms| from_arrival.record(ms * 1000).unwrap());
        (1..=100).for_each(|_| from_sending.record(2000).unwrap());
        WaitTimes { rate: 100, from_arrival, from_sending }
    }

    #[test]
    fn text_shows_both_latencies() {
        let text = waits().text();
        let p95 = text.lines().find(|line| line.contains("95 %")).unwrap();
        assert_eq!(p95.split_whitespace().collect::<Vec<_>>(), ["95", "%", "95.0", "ms", "2.0", "ms"]);
    }

    #[test]
    fn page_has_table_and_plot() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &waits()).unwrap();
        let page = fs::read_to_string(folder.path().join("spike.html")).unwrap();
        assert!(page.contains("<h1>100 buyers, 100 a second</h1>") && page.contains("<th>99.9 %</th>"));
        let plot = fs::read_to_string(folder.path().join("percentiles.svg")).unwrap();
        assert!(page.contains(&plot));
    }
}
