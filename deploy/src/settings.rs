//! The settings of the programs. Tests check every file that sets one against this list.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use anyhow::{Result, bail};
use clap::{Command, CommandFactory as _};

/// The filter for log lines. The logging library reads it, so it is not an argument of the programs.
const LOG_FILTER: &str = "RUST_LOG";

/// Returns the variables that a program, or its subcommand, reads, as listed by its `--help`.
///
/// # Errors
/// Fails when the program is unknown.
pub fn of(program: &str) -> Result<BTreeSet<String>> {
    let command = command(program)?;
    let variables = command.get_arguments().filter_map(|argument| argument.get_env());
    let variables = variables.map(|variable| variable.to_string_lossy().into_owned());
    Ok(variables.chain([LOG_FILTER.to_owned()]).collect())
}

/// Returns the default of a variable.
///
/// # Errors
/// Fails when the program is unknown.
pub fn default_of(program: &str, variable: &str) -> Result<Option<String>> {
    let command = command(program)?;
    let argument = command.get_arguments().find(|argument| argument.get_env() == Some(OsStr::new(variable)));
    let default = argument.and_then(|argument| argument.get_default_values().first());
    Ok(default.map(|value| value.to_string_lossy().into_owned()))
}

fn command(program: &str) -> Result<Command> {
    Ok(match program {
        "flashsale-node" => node::settings::Settings::command(),
        "flashsale-coordinator" => coordinator::settings::Settings::command(),
        "flashsale-ledger" => ledger::settings::Settings::command(),
        "flashsale-coordinator cluster" => coordinator::cluster_command::ClusterSettings::command(),
        _ => bail!("unknown program {program:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_differ_by_program() {
        let (node, coordinator) = (of("flashsale-node").unwrap(), of("flashsale-coordinator").unwrap());
        for both in ["HOST", "PORT", "REDIS_URL", "RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            assert!(node.contains(both) && coordinator.contains(both), "{both}");
        }
        assert!(node.contains("DRAIN_DELAY") && !coordinator.contains("DRAIN_DELAY"));
        assert!(coordinator.contains("ADMIN_TOKEN") && !node.contains("ADMIN_TOKEN"));
        assert!(of("flashsale-loadtest").is_err());
    }

    #[test]
    fn documentation_lists_exactly_the_settings() {
        let page = std::fs::read_to_string(crate::repository().join("docs/settings.md")).unwrap();
        for (program, sections) in [
            ("flashsale-node", &["All programs", "Node and coordinator", "Node"][..]),
            ("flashsale-coordinator", &["All programs", "Node and coordinator", "Coordinator"]),
            ("flashsale-ledger", &["All programs", "Ledger"]),
        ] {
            let settings: BTreeSet<String> =
                of(program).unwrap().into_iter().chain(OTEL_SAMPLER.map(String::from)).collect();
            let documented = documented(&page, sections);
            assert_eq!(documented, settings, "docs/settings.md and the settings of {program} differ");
        }
        let mut settings = of("flashsale-coordinator cluster").unwrap();
        settings.retain(|setting| !setting.starts_with("REDIS_") && setting != LOG_FILTER);
        assert_eq!(documented(&page, &["Cluster command"]), settings);
    }

    /// Variables of the OpenTelemetry library, which are documented and are no arguments of ours.
    const OTEL_SAMPLER: [&str; 2] = ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"];

    /// The variables in the first column of the tables in these sections.
    fn documented(page: &str, sections: &[&str]) -> BTreeSet<String> {
        let mut in_section = false;
        let mut variables = BTreeSet::new();
        for line in page.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                in_section = sections.contains(&title);
            } else if in_section && line.starts_with("| `") {
                let names =
                    line.split('|').nth(1).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2));
                variables.extend(names.map(str::to_owned));
            }
        }
        variables
    }
}
