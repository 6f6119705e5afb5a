//! Which settings the programs have: whatever sets one is held against this.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use anyhow::{Result, bail};
use clap::{Command, CommandFactory as _};

/// What filters log lines. It is read by the library that writes them, so it is no argument of ours.
const LOG_FILTER: &str = "RUST_LOG";

/// The variables that a program reads: those that its `--help` shows.
///
/// # Errors
/// When there is no such program.
pub fn of(program: &str) -> Result<BTreeSet<String>> {
    let variables = variables(&command(program)?);
    Ok(variables.into_iter().chain([LOG_FILTER.to_owned()]).collect())
}

/// What a program does where a variable is not set.
///
/// # Errors
/// When there is no such program.
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
        _ => bail!("there is no program {program:?}"),
    })
}

fn variables(command: &Command) -> BTreeSet<String> {
    let named = command.get_arguments().filter_map(|argument| argument.get_env());
    named.map(|variable| variable.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_its_own_settings() {
        let (node, coordinator) = (of("flashsale-node").unwrap(), of("flashsale-coordinator").unwrap());
        for both in ["HOST", "PORT", "REDIS_URL", "RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            assert!(node.contains(both) && coordinator.contains(both), "{both}");
        }
        assert!(node.contains("OPS_PORT") && !coordinator.contains("OPS_PORT"));
        assert!(coordinator.contains("ADMIN_TOKEN") && !node.contains("ADMIN_TOKEN"));
        assert!(of("flashsale-loadtest").is_err());
    }
}
