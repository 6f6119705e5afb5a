//! `cargo xtask chaos`: runs a real sale, attacks it by a schedule derived from a seed, and audits it.

mod seeds;
mod watch;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use ::chaos::{FaultKind, Report, RunOptions, ensure_disk_can_be_full, markdown};
use anyhow::{Context, Result, bail};
use clap::Args;
use testkit::{BuildProfile, NetworkNamespace, ServerBinary, ensure_clocks_can_be_set, workspace_root};
use tokio::sync::mpsc;

use crate::{
    install::{FAKETIME, NGINX, POSTGRESQL, RABBITMQ, REDIS, ensure_installed},
    interruption::Interruption,
    up::{build, time},
};

use seeds::Seeds;

/// Exit code of a run in which a promise was broken.
const VIOLATED: u8 = 2;

/// Arguments of `cargo xtask chaos`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The seed of the schedule. Chosen at random if not given.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Make one run per seed of this range and print one table of all runs, for example `1..20`.
    #[arg(long, value_name = "FIRST..LAST")]
    seeds: Option<Seeds>,
    /// How long faults are injected.
    #[arg(long, value_name = "TIME", default_value = "6m", value_parser = time)]
    duration: Duration,
    /// The minimum time between two faults.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pace: Duration,
    /// Inject only these kinds of faults, comma-separated. Defaults to all kinds.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<FaultKind>,
    /// Units to sell. Defaults to enough for the duration.
    #[arg(long, value_name = "UNITS")]
    stock: Option<u64>,
    /// Requests per second of all buyers together.
    #[arg(long, value_name = "REQUESTS", default_value_t = 250.0)]
    rate: f64,
    /// The Redis or Valkey server to attack. Defaults to `redis-server` from the PATH.
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,
    /// The folder for logs, data and journals. Defaults to `.local/chaos` in the workspace.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
    /// Keep logs, data and journal of a clean run too.
    #[arg(long)]
    keep_logs: bool,
    /// Write the figures of all runs to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) async fn chaos(options: Options) -> Result<ExitCode> {
    let mut interruption = Interruption::listen()?;
    let runs = options.runs()?;
    let mut reports = Vec::new();
    for run in &runs {
        let report = tokio::select! {
            // Boxed, because the future is too large for the compiler when it is laid out inline.
            report = Box::pin(attack(run)) => report,
            () = interruption.received() => bail!("interrupted; nothing is left running"),
        };
        let kept_note = format!("logs, data and journal are in {}", run.folder.display());
        let report = report.with_context(|| kept_note.clone())?;
        watch::print_report(&report, &kept_note);
        if report.violations.is_empty() && !options.keep_logs {
            fs::remove_dir_all(&run.folder).ok();
        }
        reports.push(report);
        options.write(&reports)?;
    }
    say!("\n{}", markdown(&reports));
    let is_clean = reports.iter().all(|report| report.violations.is_empty());
    Ok(if is_clean { ExitCode::SUCCESS } else { VIOLATED.into() })
}

impl Options {
    /// Prepares the options of all runs. Does everything that can fail or take long before the first process starts.
    fn runs(&self) -> Result<Vec<RunOptions>> {
        let redis_server = self.redis_server.as_ref().map(ServerBinary::at).transpose()?;
        ensure_installed(&[FAKETIME, NGINX, POSTGRESQL, RABBITMQ])?;
        ensure_installed(if redis_server.is_some() { &[] } else { &[REDIS] })?;
        let programs = build("dev", true)?;
        let kinds = self.possible_kinds();
        let sabotaged_node = kinds.contains(&FaultKind::NodeDiesStealing).then(sabotaged_node).transpose()?;
        let folder = self.folder.clone().unwrap_or_else(|| workspace_root().join(".local/chaos"));
        let run = |seed| RunOptions {
            seed,
            duration: self.duration,
            pace: self.pace,
            kinds: kinds.clone(),
            stock: self.stock,
            requests_per_second: self.rate,
            folder: folder.join(format!("seed-{seed}")),
            redis_server: redis_server.clone(),
            programs: Some(programs.clone()),
            sabotaged_node: sabotaged_node.clone(),
        };
        Ok(self.chosen_seeds().map(run).collect())
    }

    fn chosen_seeds(&self) -> impl Iterator<Item = u64> {
        let one = || Seeds::only(self.seed.unwrap_or_else(seeds::random));
        self.seeds.unwrap_or_else(one).all()
    }

    /// Returns the requested kinds, without those that this machine does not allow.
    fn possible_kinds(&self) -> Vec<FaultKind> {
        let mut kinds = if self.kinds.is_empty() { FaultKind::all().to_vec() } else { self.kinds.clone() };
        kinds.retain(|&kind| match ensure_possible(kind) {
            Ok(()) => true,
            Err(reason) => {
                say!("left out: {kind} ({reason:#})");
                false
            }
        });
        kinds
    }

    fn write(&self, reports: &[Report]) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(reports)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn ensure_possible(kind: FaultKind) -> Result<()> {
    match kind {
        FaultKind::Partition => NetworkNamespace::ensure_possible(),
        FaultKind::ClockStepped => ensure_clocks_can_be_set(),
        FaultKind::PostgresDiskFull => ensure_disk_can_be_full(),
        _ => Ok(()),
    }
}

fn sabotaged_node() -> Result<PathBuf> {
    BuildProfile::of_this_program()?.build_with("flashsale-node-sabotaged", "node/sabotage")
}

/// Makes one run and prints its events.
async fn attack(run: &RunOptions) -> Result<Report> {
    watch::print_schedule(&run.schedule(), run.duration);
    let (events, receiver) = mpsc::unbounded_channel();
    let running = async {
        let report = ::chaos::run(run, &events).await;
        drop(events);
        report
    };
    let (report, ()) = tokio::join!(running, watch::print_events(receiver));
    report
}
