//! Runs Goose: users who start and stop by a plan, and Goose's reports.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use buyers::AnswerKind;
use goose::{
    GooseAttack, GooseError,
    client::GooseClientBuilder,
    config::GooseConfiguration,
    goose::{GooseUser, Scenario, TransactionResult},
};

use crate::client::Exchange;

/// File names of Goose's reports. The extension selects the format.
const REPORTS: [&str; 3] = ["goose.html", "goose.json", "goose.md"];

/// Number of users, and the time until that number is reached.
pub(crate) type Step = (u32, Duration);

/// Runs a scenario by a plan. Ctrl-C ends the plan early: active users finish their transaction.
pub(crate) async fn attack(
    scenario: Scenario,
    plan: &[Step],
    url: &str,
    reports: &Path,
    verbose: bool,
) -> Result<()> {
    fs::create_dir_all(reports).with_context(|| format!("cannot write to {}", reports.display()))?;
    let configuration = configuration(&arguments(plan, url, reports, verbose))?;
    run(configuration, scenario).await.map_err(|error| anyhow::anyhow!("Goose: {error}"))
}

/// Records a request in Goose's statistics.
pub(crate) async fn record(user: &mut GooseUser, exchange: &Exchange) -> TransactionResult {
    let Exchange { method, name, answer, latency } = exchange;
    let error = format!("{name}: {}", answer.kind);
    let kind = answer.kind;
    let is_success = (kind == AnswerKind::Data || kind.is_definite()) && !kind.is_error();
    user.record_custom_request_duration(method, name, *latency, is_success, answer.status, Some(&error)).await
}

async fn run(configuration: GooseConfiguration, scenario: Scenario) -> Result<(), GooseError> {
    // Goose's own clients send nothing here, so one shared client is enough.
    let client = GooseClientBuilder::new().without_cookies();
    let attack = GooseAttack::initialize_with_config(configuration)?;
    let attack = attack.set_client_builder_without_cookies(client)?;
    attack.register_scenario(scenario).execute().await.map(drop)
}

fn configuration(arguments: &[String]) -> Result<GooseConfiguration> {
    GooseConfiguration::parse_args_default(arguments).map_err(|error| anyhow::anyhow!("Goose: {error}"))
}

fn arguments(plan: &[Step], url: &str, reports: &Path, verbose: bool) -> Vec<String> {
    let mut arguments: Vec<String> = ["--no-telnet", "--no-print-metrics"].map(str::to_owned).into();
    arguments.extend(["--host".to_owned(), url.to_owned(), "--test-plan".to_owned(), plan_text(plan)]);
    let files = REPORTS.map(|report| reports.join(report).to_string_lossy().into_owned());
    arguments.extend(files.into_iter().flat_map(|file| ["--report-file".to_owned(), file]));
    if !verbose {
        arguments.push("--quiet".to_owned());
    }
    arguments
}

/// Formats a plan in Goose's notation.
fn plan_text(plan: &[Step]) -> String {
    let steps: Vec<String> =
        plan.iter().map(|(users, time)| format!("{users},{}s", time.as_secs())).collect();
    steps.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goose_accepts_the_arguments() {
        let plan = [(10, Duration::from_secs(90)), (0, Duration::ZERO)];
        assert_eq!(plan_text(&plan), "10,90s;0,0s");
        let arguments = arguments(&plan, "http://127.0.0.1:8080", Path::new("reports"), false);
        let configuration = configuration(&arguments).unwrap();
        assert!(configuration.no_telnet && !configuration.websocket, "Goose listens on no control port");
        assert_eq!(
            configuration.report_file,
            ["reports/goose.html", "reports/goose.json", "reports/goose.md"]
        );
    }
}
