//! The report at the end of a run: tables and a verdict.

use std::fmt::Write as _;

use buyers::{AnswerKind, AuditReport};

use crate::{
    audit::Evidence,
    exit::RunResult,
    tally::{Counts, Latency},
    thresholds::{Check, Limits, millis},
};

/// Width of the label column.
const LABEL: usize = 24;

/// Results of a finished run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) sale: String,
    pub(crate) counts: Counts,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) evidence: Evidence,
    pub(crate) limits: Limits,
}

impl Report {
    pub(crate) fn result(&self) -> RunResult {
        if !self.evidence.violations().is_empty() {
            RunResult::Broken
        } else if self.checks().iter().any(|check| !check.is_met) {
            RunResult::Missed
        } else {
            RunResult::Clean
        }
    }

    /// Returns the report as aligned text.
    pub(crate) fn text(&self) -> String {
        let Self { scenario, sale, counts, .. } = self;
        let seconds = counts.elapsed.as_secs_f64();
        let mut text = format!("\n{scenario} at sale `{sale}`, {seconds:.0} s");
        if counts.users_max > 0 {
            write!(text, ", up to {} users at a time", counts.users_max).expect(IN_MEMORY);
        }
        text += "\n";
        for part in [self.requests(), self.outcomes(), self.audit(), self.thresholds(), self.verdict()] {
            text += "\n";
            text += &part;
        }
        text
    }

    fn requests(&self) -> String {
        let mut text =
            format!("{:LABEL$}{:>10}{:>11}{:>11}{:>11}{:>11}\n", "requests", "", "p50", "p95", "p99", "max");
        for Latency { name, requests, p50, p95, p99, max } in &self.latencies {
            let [p50, p95, p99, max] = [p50, p95, p99, max].map(|time| millis(*time));
            writeln!(text, "  {name:<22}{requests:>10}{p50:>11}{p95:>11}{p99:>11}{max:>11}")
                .expect(IN_MEMORY);
        }
        text
    }

    fn outcomes(&self) -> String {
        let mut text = String::from("outcomes\n");
        for kind in AnswerKind::OUTCOMES {
            text += &row(&kind.to_string(), self.counts.of(kind), "");
        }
        text += &row("gave up", self.counts.gave_up, "");
        let errors: String = self.counts.errors_listed.iter().map(|error| format!("  {error}\n")).collect();
        if errors.is_empty() { text } else { format!("{text}\nthe first errors\n{errors}") }
    }

    fn audit(&self) -> String {
        let Evidence { before, after, buyers, lookups, contradictions, .. } = &self.evidence;
        let AuditReport { total, sold, stock, in_flight, claims, orders, .. } = after;
        [
            "the audit\n".to_owned(),
            row(
                "units before",
                before.total - before.sold.min(before.total),
                &format!("of {}", before.total),
            ),
            row("sold", *sold, &format!("of {total}, {} of them in this run", self.evidence.sold_in_run())),
            row("left", *stock, ""),
            row("in channels", *in_flight, ""),
            row("claims", *claims, ""),
            row("orders", *orders, ""),
            self.evidence
                .ledger
                .as_ref()
                .map_or_else(String::new, |ledger| row("rows of the ledger", ledger.rows, "")),
            row("answered `purchased`", *buyers as u64, "distinct users"),
            row(
                "found by a lookup",
                lookups.found as u64,
                &format!("of {} that were looked up", lookups.asked),
            ),
            row("contradictions", contradictions.len() as u64, "between answers"),
        ]
        .concat()
    }

    fn thresholds(&self) -> String {
        let mut text = String::from("thresholds\n");
        for Check { what, limit, found, is_met } in self.checks() {
            let word = if is_met { "met" } else { "MISSED" };
            writeln!(text, "  {what:<22}{limit:>18}  {word}: {found}").expect(IN_MEMORY);
        }
        text
    }

    fn verdict(&self) -> String {
        let violations: String =
            self.evidence.violations().iter().map(|what| format!("  {what}\n")).collect();
        match self.result() {
            RunResult::Clean => "verdict: clean. Every promise held, every threshold was met.\n".into(),
            RunResult::Missed => "verdict: missed. Every promise held, but a threshold was missed.\n".into(),
            RunResult::Broken => format!("verdict: BROKEN. Promises that did not hold:\n{violations}"),
        }
    }

    fn checks(&self) -> Vec<Check> {
        self.limits.check(&self.counts, &self.latencies)
    }
}

const IN_MEMORY: &str = "writing to a String cannot fail";

fn row(label: &str, count: u64, remark: &str) -> String {
    format!("{}\n", format!("  {label:<22}{count:>10}  {remark}").trim_end())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::audit::Lookups;

    fn report() -> Report {
        let ms = Duration::from_millis;
        let audit = AuditReport { ok: true, total: 100, ..AuditReport::default() };
        Report {
            scenario: "rush",
            sale: "flash".into(),
            counts: Counts {
                elapsed: ms(30_200),
                users_max: 1000,
                outcomes: BTreeMap::from([(AnswerKind::Purchased, 100), (AnswerKind::SoldOut, 4321)]),
                ..Counts::default()
            },
            latencies: vec![Latency {
                name: "purchase",
                requests: 4421,
                p50: ms(2),
                p95: ms(40),
                p99: ms(80),
                max: ms(120),
            }],
            evidence: Evidence {
                before: AuditReport { stock: 100, ..audit.clone() },
                after: AuditReport { sold: 100, claims: 100, orders: 100, ..audit },
                buyers: 100,
                sold_out: 4321,
                lookups: Lookups { asked: 100, found: 100 },
                ..Evidence::default()
            },
            limits: Limits { p95: ms(100), errors: 0 },
        }
    }

    #[test]
    fn report_is_aligned_and_ends_with_verdict() {
        let text = report().text();
        for line in [
            "rush at sale `flash`, 30 s, up to 1000 users at a time",
            "  purchase                    4421     2.0 ms    40.0 ms    80.0 ms     120 ms",
            "  purchased                    100",
            "  sold out                    4321",
            "  sold                         100  of 100, 100 of them in this run",
            "  found by a lookup            100  of 100 that were looked up",
            "  p95 of each kind          at most 100 ms  met: 40.0 ms (purchase)",
            "verdict: clean. Every promise held, every threshold was met.",
        ] {
            assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
        }
        assert_eq!(report().result(), RunResult::Clean);
    }

    #[test]
    fn errors_are_listed_in_full() {
        let mut report = report();
        assert!(!report.text().contains("the first errors"));
        report.counts.errors_listed = vec!["purchase, unexpected: 500 oops".into()];
        assert!(report.text().contains("\nthe first errors\n  purchase, unexpected: 500 oops\n\n"));
    }

    #[test]
    fn broken_promise_outranks_missed_threshold() {
        let mut report = report();
        report.limits.p95 = Duration::ZERO;
        assert_eq!(report.result(), RunResult::Missed);
        report.evidence.after.sold = 101;
        assert_eq!(report.result(), RunResult::Broken);
        assert!(report.text().contains(
            "verdict: BROKEN. Promises that did not hold:\n  101 units are sold, but only 100 exist"
        ));
    }
}
