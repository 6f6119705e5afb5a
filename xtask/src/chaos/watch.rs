//! What a person sees of a run: the schedule, a line for each fault, how far it is, and the verdict.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use chaos::{Counts, FaultReport, PlannedFault, Report, RunEvent, Schedule};
use tokio::sync::mpsc::UnboundedReceiver;

/// Back to the start of the line, and empty it (ECMA-48 `EL`).
const REWRITE: &str = "\r\x1b[2K";

/// Where the line cannot be rewritten in place it is printed every so many times.
const PRINT_EVERY: u64 = 15;

/// The schedule, before anything starts.
pub(super) fn announce(schedule: &Schedule, duration: Duration) {
    println!("\nseed {}: {} faults in {duration:.0?}", schedule.seed, schedule.faults.len());
    for PlannedFault { at, kind, draw } in &schedule.faults {
        println!("  {:6.1} s  {kind:22} target by draw {draw}", at.as_secs_f64());
    }
}

/// Shows what happens until it is over.
pub(super) async fn follow(mut told: UnboundedReceiver<RunEvent>) {
    let mut line = ProgressLine { in_place: io::stdout().is_terminal(), looks: 0 };
    while let Some(news) = told.recv().await {
        match news {
            RunEvent::Open { units } => line.print(&format!("\nthe sale of {units} units is open")),
            RunEvent::Fault(fault) => line.print(&one_line(&fault)),
            RunEvent::Progress(counts) => line.show(counts),
            RunEvent::Closing(what) => line.print(&format!("          {what}")),
        }
    }
    line.print("");
}

/// The figures and the verdict.
pub(super) fn show(report: &Report, kept: &str) {
    println!(
        "seed {}: {} units sold at {} sales, {} requests ({} of the second family, {} without a key, {} refused while not \
         active), {} unknown answers; {} of {} changes done in {} tries; {} faults, {:.0} s; quiet: p99 {:.1} ms, {} unknown",
        report.seed,
        report.purchases,
        report.sales,
        report.requests,
        report.single_sale,
        report.without_key,
        report.not_active,
        report.unknown,
        report.changes_done,
        report.changes,
        report.change_tries,
        report.faults.len(),
        report.seconds,
        report.quiet_p99_ms,
        report.quiet_unknown,
    );
    if report.violations.is_empty() {
        println!("clean: every promise held");
        return;
    }
    println!("VIOLATED: {} promises were broken; {kept}", report.violations.len());
    for violation in &report.violations {
        println!("  {violation}");
    }
}

fn one_line(fault: &FaultReport) -> String {
    let outage =
        fault.outage_seconds.map_or("no shard hit".into(), |seconds| format!("outage {seconds:.1} s"));
    format!(
        "{:7.1} s  {:22} {}; {outage}, whole after {:.1} s, {} unknown; others: {} of {} unknown, p99 {:.0} ms",
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

/// The line that shows how far it is.
struct ProgressLine {
    in_place: bool,
    looks: u64,
}

impl ProgressLine {
    fn show(&mut self, counts: Counts) {
        let Counts { requests, purchases, unknown, in_doubt, .. } = counts;
        let text =
            format!("{requests} requests, {purchases} bought, {unknown} unknown, {in_doubt} in doubt now");
        self.looks += 1;
        match self.in_place {
            true => print!("{REWRITE}          {text}"),
            false if self.looks.is_multiple_of(PRINT_EVERY) => println!("          {text}"),
            false => {}
        }
        // A closed terminal is no reason to stop.
        io::stdout().flush().ok();
    }

    fn print(&mut self, text: &str) {
        if self.in_place {
            print!("{REWRITE}");
        }
        println!("{text}");
    }
}
