//! Goose: users who come and go by a plan, and its reports.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use goose::{
    GooseAttack, GooseError,
    client::GooseClientBuilder,
    config::GooseConfiguration,
    goose::{GooseUser, Scenario, TransactionResult},
};

use crate::client::Exchange;

/// What Goose calls its reports; the extension says which kind each is.
const REPORTS: [&str; 3] = ["goose.html", "goose.json", "goose.md"];

/// So many users, and the time until there are.
pub(crate) type Step = (u32, Duration);

/// Runs people through a plan. Ctrl-C ends the plan early: those who are there finish what they are at.
pub(crate) async fn attack(
    people: Scenario,
    plan: &[Step],
    url: &str,
    reports: &Path,
    verbose: bool,
) -> Result<()> {
    fs::create_dir_all(reports).with_context(|| format!("cannot write to {}", reports.display()))?;
    let configuration = configuration(&arguments(plan, url, reports, verbose))?;
    run(configuration, people).await.map_err(|error| anyhow::anyhow!("Goose: {error}"))
}

/// Tells Goose of a request.
pub(crate) async fn record(user: &mut GooseUser, exchange: &Exchange) -> TransactionResult {
    let Exchange { method, name, status, answer, latency } = exchange;
    let error = format!("{name}: {}", answer.kind.name());
    let is_success = answer.kind.is_success();
    user.record_custom_request_duration(method, name, *latency, is_success, *status, Some(&error)).await
}

async fn run(configuration: GooseConfiguration, people: Scenario) -> Result<(), GooseError> {
    // Its clients send nothing here, and one costs less than a thousand.
    let client = GooseClientBuilder::new().without_cookies();
    let attack = GooseAttack::initialize_with_config(configuration)?;
    let attack = attack.set_client_builder_without_cookies(client)?;
    attack.register_scenario(people).execute().await.map(drop)
}

fn configuration(arguments: &[String]) -> Result<GooseConfiguration> {
    GooseConfiguration::parse_args_default(arguments).map_err(|error| anyhow::anyhow!("Goose: {error}"))
}

fn arguments(plan: &[Step], url: &str, reports: &Path, verbose: bool) -> Vec<String> {
    let mut arguments: Vec<String> = ["--no-telnet", "--no-print-metrics"].map(str::to_owned).into();
    arguments.extend(["--host".to_owned(), url.to_owned(), "--test-plan".to_owned(), text(plan)]);
    let files = REPORTS.map(|report| reports.join(report).to_string_lossy().into_owned());
    arguments.extend(files.into_iter().flat_map(|file| ["--report-file".to_owned(), file]));
    if !verbose {
        arguments.push("--quiet".to_owned());
    }
    arguments
}

/// A plan in Goose's notation.
fn text(plan: &[Step]) -> String {
    let steps: Vec<String> =
        plan.iter().map(|(users, time)| format!("{users},{}s", time.as_secs())).collect();
    steps.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goose_takes_what_it_is_told() {
        let plan = [(10, Duration::from_secs(90)), (0, Duration::ZERO)];
        assert_eq!(text(&plan), "10,90s;0,0s");
        let arguments = arguments(&plan, "http://127.0.0.1:8080", Path::new("reports"), false);
        let configuration = configuration(&arguments).unwrap();
        assert!(configuration.no_telnet && !configuration.websocket, "nobody else gives it orders");
        assert_eq!(
            configuration.report_file,
            ["reports/goose.html", "reports/goose.json", "reports/goose.md"]
        );
    }
}
