//! Formats the results of many runs as a table for the documentation.

use std::fmt::Write as _;

use crate::{FaultKind, FaultReport, Report};

/// A fault and its run.
type FaultInRun<'a> = (&'a FaultReport, &'a Report);

/// Returns a Markdown table with a row for each kind of fault, followed by the totals.
pub fn markdown(reports: &[Report]) -> String {
    let mut table = String::from(
        "| fault | times | purchases audited | unknown answers | longest outage of an affected shard | others: unknown | others: p99 (without faults) |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let all = || reports.iter().flat_map(|report| report.faults.iter().map(move |fault| (fault, report)));
    for &kind in FaultKind::all() {
        let faults: Vec<FaultInRun<'_>> = all().filter(|(fault, _)| fault.kind == kind).collect();
        if !faults.is_empty() {
            table += &row(kind, &faults);
        }
    }
    table + &totals(reports)
}

fn row(kind: FaultKind, faults: &[FaultInRun<'_>]) -> String {
    let sum = |part: fn(&FaultReport) -> u64| faults.iter().map(|(fault, _)| part(fault)).sum::<u64>();
    let longest = faults.iter().filter_map(|(fault, _)| fault.outage_seconds).max_by(f64::total_cmp);
    let outage = longest.map_or("none affected".into(), |seconds| format!("{seconds:.1} s"));
    format!(
        "| {kind} | {} | {} | {} | {outage} | {} |\n",
        faults.len(),
        sum(|fault| fault.purchases),
        sum(|fault| fault.unknown),
        effect_on_others(faults),
    )
}

/// Uses medians, because single runs on a busy machine are slow without faults, too.
fn effect_on_others(faults: &[FaultInRun<'_>]) -> String {
    let with_others: Vec<_> = faults.iter().filter(|(fault, _)| fault.others_requests > 0).collect();
    if with_others.is_empty() {
        return "no others | ".into();
    }
    let unknown: u64 = with_others.iter().map(|(fault, _)| fault.others_unknown).sum();
    let requests: u64 = with_others.iter().map(|(fault, _)| fault.others_requests).sum();
    let then = median(with_others.iter().map(|(fault, _)| fault.others_p99_ms).collect());
    let quiet = median(with_others.iter().map(|(_, report)| report.quiet_p99_ms).collect());
    format!("{unknown} of {requests} | {then:.0} ms ({quiet:.0} ms)")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn totals(reports: &[Report]) -> String {
    let sum = |part: fn(&Report) -> u64| reports.iter().map(part).sum::<u64>();
    let faults: usize = reports.iter().map(|report| report.faults.len()).sum();
    let violations: usize = reports.iter().map(|report| report.violations.len()).sum();
    let quiet = reports.iter().map(|report| report.quiet_p99_ms).max_by(f64::total_cmp).unwrap_or_default();
    let mut text = format!(
        "| all | {faults} | {} | {} | | | |\n\n",
        sum(|r| r.counts.purchases),
        sum(|r| r.counts.unknown)
    );
    writeln!(
        text,
        "{} runs, {faults} faults, {} sales, {} requests, {} purchases audited, {} changes of operators, {violations} \
         violations; without faults {} unknown answers, p99 at most {quiet:.0} ms.",
        reports.len(),
        sum(|r| r.sales),
        sum(|r| r.counts.requests),
        sum(|r| r.counts.purchases),
        sum(|r| r.changes.changes_done),
        sum(|r| r.quiet_unknown),
    )
    .expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChangeCounts, Counts};

    fn fault(
        kind: FaultKind,
        outage_seconds: Option<f64>,
        others_requests: u64,
        others_p99_ms: f64,
    ) -> FaultReport {
        FaultReport {
            kind,
            at_seconds: 5.0,
            target: "target".into(),
            shards: Vec::new(),
            whole_after_seconds: 6.0,
            outage_seconds,
            purchases: 10,
            unknown: 2,
            others_requests,
            others_unknown: 1,
            others_p99_ms,
        }
    }

    fn report(faults: Vec<FaultReport>) -> Report {
        Report {
            seed: 1,
            redis: "Redis server v=7.0.15".into(),
            sales: 4,
            changes: ChangeCounts { changes: 20, changes_done: 19, change_tries: 30 },
            counts: Counts { requests: 250, purchases: 100, unknown: 9, ..Counts::default() },
            rows: 100,
            parcels: 200,
            quiet_p99_ms: 12.0,
            quiet_unknown: 0,
            seconds: 60.0,
            faults,
            violations: Vec::new(),
        }
    }

    #[test]
    fn table_sums_kinds_and_shows_longest_outage() {
        let killed = |outage, p99| fault(FaultKind::PrimaryKilled, Some(outage), 50, p99);
        let of_all = fault(FaultKind::RedisKilled, Some(4.0), 0, 0.0);
        let runs = [report(vec![killed(2.0, 10.0), of_all]), report(vec![killed(3.25, 20.0)])];

        let table = markdown(&runs);

        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows[0], "| primary-killed | 2 | 20 | 4 | 3.2 s | 2 of 100 | 20 ms (12 ms) |");
        assert_eq!(rows[1], "| redis-killed | 1 | 10 | 2 | 4.0 s | no others |  |");
        assert_eq!(rows[2], "| all | 3 | 200 | 18 | | | |");
    }
}
