#![doc = include_str!("../README.md")]

mod answer_log;
mod attack;
mod audit;
mod client;
mod exit;
mod options;
mod progress;
mod report;
mod scenarios;
mod spike;
mod tally;
mod target;
mod thresholds;

use std::{
    fs,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};

use audit::Evidence;
use exit::RunResult;
use options::Scenario;
use progress::print_progress;
use report::Report;
use target::LoadTarget;

#[tokio::main]
async fn main() -> ExitCode {
    let options = options::parse();
    exit::exit_code(load(&options.scenario).await)
}

/// Finds the sale, generates the load, and audits the answers.
async fn load(scenario: &Scenario) -> Result<RunResult> {
    let target = Arc::new(LoadTarget::find(scenario).await?);
    let before = target.audit().await?;
    writeln!(io::stdout(), "{} at {}, sale `{}`", scenario.name(), target.sale_client.url(), target.sale)
        .ok();

    let progress = print_progress(&target.sale_client);
    scenarios::run(scenario, &target).await?;
    drop(progress);

    let (counts, latencies) = (target.sale_client.tally.counts(), target.sale_client.tally.latencies());
    let evidence = Evidence::gather(&target, before, &counts).await?;
    let (name, sale, limits) = (scenario.name(), target.sale.clone(), scenario.limits());
    let report = Report { scenario: name, sale, counts, latencies, evidence, limits };
    write_report(&report, scenario)?;
    Ok(report.result())
}

/// Prints the report and writes it to a file. The verdict is returned even if the reader of the output is gone.
fn write_report(report: &Report, scenario: &Scenario) -> Result<()> {
    let (text, folder) = (report.text(), scenario.reports());
    write!(io::stdout(), "{text}").ok();
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("verdict.txt"), text))
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    writeln!(io::stdout(), "reports are in {}", folder.display()).ok();
    Ok(())
}
