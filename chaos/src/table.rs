//! The table of many runs, for the README.

use std::fmt::Write as _;

use crate::{FaultReport, Kind, Report};

/// A row for each kind, and the totals, as Markdown.
pub fn markdown(reports: &[Report]) -> String {
    let mut table = String::from(
        "| fault | times | purchases audited | unknown answers | longest outage of an affected shard | others: unknown | others: p99 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for kind in Kind::ALL {
        let faults: Vec<&FaultReport> =
            reports.iter().flat_map(|report| &report.faults).filter(|fault| fault.kind == kind).collect();
        if !faults.is_empty() {
            table += &row(kind, &faults);
        }
    }
    table + &totals(reports)
}

fn row(kind: Kind, faults: &[&FaultReport]) -> String {
    let sum = |part: fn(&FaultReport) -> u64| faults.iter().map(|fault| part(fault)).sum::<u64>();
    let longest = faults.iter().filter_map(|fault| fault.outage_seconds).max_by(f64::total_cmp);
    let outage = longest.map_or("none affected".into(), |seconds| format!("{seconds:.1} s"));
    let others = sum(|fault| fault.others_requests);
    let slowest = faults.iter().map(|fault| fault.others_p99_ms).max_by(f64::total_cmp).unwrap_or_default();
    let (others_unknown, others_p99) = match others {
        0 => ("no others".into(), String::new()),
        _ => (format!("{} of {others}", sum(|fault| fault.others_unknown)), format!("{slowest:.0} ms")),
    };
    format!(
        "| {kind} | {} | {} | {} | {outage} | {others_unknown} | {others_p99} |\n",
        faults.len(),
        sum(|fault| fault.purchases),
        sum(|fault| fault.unknown),
    )
}

fn totals(reports: &[Report]) -> String {
    let sum = |part: fn(&Report) -> u64| reports.iter().map(part).sum::<u64>();
    let faults: usize = reports.iter().map(|report| report.faults.len()).sum();
    let violations: usize = reports.iter().map(|report| report.violations.len()).sum();
    let quiet = reports.iter().map(|report| report.quiet_p99_ms).max_by(f64::total_cmp).unwrap_or_default();
    let mut text =
        format!("| all | {faults} | {} | {} | | | |\n\n", sum(|r| r.purchases), sum(|r| r.unknown));
    writeln!(
        text,
        "{} runs, {faults} faults, {} requests, {} purchases audited, {violations} violations; in quiet times {} unknown \
         answers, p99 at most {quiet:.0} ms.",
        reports.len(),
        sum(|r| r.requests),
        sum(|r| r.purchases),
        sum(|r| r.quiet_unknown),
    )
    .expect("writing to a String cannot fail");
    text
}
