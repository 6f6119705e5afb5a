#![doc = include_str!("../README.md")]

mod admin;
mod answer_log;
mod answers;
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

use std::{fs, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};

use audit::Evidence;
use exit::RunResult;
use options::Scenario;
use progress::Progress;
use report::Report;
use target::LoadTarget;

#[tokio::main]
async fn main() -> ExitCode {
    let options = options::parse();
    exit::code(load(&options.scenario).await)
}

/// Finds the sale, lets the crowd come, and audits what it was told.
async fn load(scenario: &Scenario) -> Result<RunResult> {
    let place = Arc::new(LoadTarget::find(scenario).await?);
    let before = place.admin.audit(&place.sale).await?;
    println!("{} at {}, sale `{}`", scenario.name(), place.shop.url(), place.sale);

    let progress = Progress::begin(&place.shop);
    scenarios::run(scenario, &place).await?;
    drop(progress);

    let (counts, latencies) = (place.shop.tally.counts(), place.shop.tally.latencies());
    let evidence = Evidence::gather(&place, before, &counts).await?;
    let (name, sale, limits) = (scenario.name(), place.sale.clone(), scenario.limits());
    let report = Report { scenario: name, sale, counts, latencies, evidence, limits };
    hand_over(&report, scenario)?;
    Ok(report.ending())
}

/// To whoever waits, and to a file for later.
fn hand_over(report: &Report, scenario: &Scenario) -> Result<()> {
    let (text, folder) = (report.text(), scenario.reports());
    print!("{text}");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join("verdict.txt"), text))
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    println!("reports are in {}", folder.display());
    Ok(())
}
