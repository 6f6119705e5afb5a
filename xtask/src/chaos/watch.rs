//! Console output of a run: the schedule, one line per fault, the progress and the verdict.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use chaos::{Counts, FaultReport, PlannedFault, Report, RunEvent, Schedule};
use tokio::sync::mpsc::UnboundedReceiver;

/// Returns to the start of the line and clears it (ECMA-48 `EL`).
const REWRITE: &str = "\r\x1b[2K";

/// Number of progress updates per printed line, where the line cannot be rewritten in place.
const UPDATES_PER_LINE: u64 = 15;

/// Prints the schedule before anything starts.
pub(super) fn print_schedule(schedule: &Schedule, duration: Duration) {
    say!("\nseed {}: {} faults in {duration:.0?}", schedule.seed, schedule.faults.len());
    for PlannedFault { at, kind, draw } in &schedule.faults {
        say!("  {:6.1} s  {kind:24} target by draw {draw}", at.as_secs_f64());
    }
}

/// Prints the events of a run until the channel closes.
pub(super) async fn print_events(mut events: UnboundedReceiver<RunEvent>) {
    let mut line = ProgressLine { in_place: io::stdout().is_terminal(), updates: 0 };
    while let Some(event) = events.recv().await {
        match event {
            RunEvent::Open { units } => line.print(&format!("\nthe sale of {units} units is open")),
            RunEvent::Fault(fault) => line.print(&fault_line(&fault)),
            RunEvent::Progress(counts) => line.show(counts),
            RunEvent::Closing(what) => line.print(&format!("          {what}")),
        }
    }
    line.print("");
}

/// Prints the figures and the verdict.
pub(super) fn print_report(report: &Report, kept_note: &str) {
    say!(
        "seed {}: {} purchases answered at {} sales, {} rows in PostgreSQL, {} parcels, {} requests ({} single-sale, {} without a key, {} refused while not \
         active), {} unknown answers; {} of {} changes done in {} tries; {} faults, {:.0} s; quiet: p99 {:.1} ms, {} unknown",
        report.seed,
        report.counts.purchases,
        report.sales,
        report.rows,
        report.parcels,
        report.counts.requests,
        report.counts.single_sale,
        report.counts.without_key,
        report.counts.not_active,
        report.counts.unknown,
        report.changes.changes_done,
        report.changes.changes,
        report.changes.change_tries,
        report.faults.len(),
        report.seconds,
        report.quiet_p99_ms,
        report.quiet_unknown,
    );
    if report.violations.is_empty() {
        say!("clean: every promise held");
        return;
    }
    say!("VIOLATED: {} promises were broken; {kept_note}", report.violations.len());
    for violation in &report.violations {
        say!("  {violation}");
    }
}

fn fault_line(fault: &FaultReport) -> String {
    let outage =
        fault.outage_seconds.map_or("no shard hit".into(), |seconds| format!("outage {seconds:.1} s"));
    format!(
        "{:7.1} s  {:24} {}; {outage}, whole after {:.1} s, {} unknown; others: {} of {} unknown, p99 {:.0} ms",
        fault.at_seconds,
        fault.kind,
        fault.target,
        fault.whole_after_seconds,
        fault.unknown,
        fault.others_unknown,
        fault.others_requests,
        fault.others_p99_ms,
    )
}

/// The line that shows the progress of a run.
struct ProgressLine {
    in_place: bool,
    updates: u64,
}

impl ProgressLine {
    fn show(&mut self, counts: Counts) {
        let Counts { requests, purchases, unknown, unresolved, .. } = counts;
        let text = format!(
            "{requests} requests, {purchases} bought, {unknown} unknown, {unresolved} unresolved now"
        );
        self.updates += 1;
        match self.in_place {
            true => say_part!("{REWRITE}          {text}"),
            false if self.updates.is_multiple_of(UPDATES_PER_LINE) => say!("          {text}"),
            false => {}
        }
        // A closed terminal is no reason to stop.
        io::stdout().flush().ok();
    }

    fn print(&mut self, text: &str) {
        if self.in_place {
            say_part!("{REWRITE}");
        }
        say!("{text}");
    }
}
