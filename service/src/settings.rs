//! Settings: environment variables, each with a flag of the same name, parsed completely before anything starts.
//!
//! An empty variable counts as not set. An invalid value is reported as one line on standard error that names the
//! setting and the valid values, and the exit code is [`exit::SETTINGS`].

pub(crate) mod ca_file;
mod duration;
mod file;
mod redis;
mod time_setting;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Parser};

use crate::exit;

pub use ca_file::{CaFile, InvalidCaFile};
pub use duration::{InvalidDuration, duration, positive_duration};
pub use file::{InvalidFile, in_file};
pub use redis::RedisSettings;
pub use time_setting::{InvalidTime, TimeSetting};

/// Parses the settings of this process. Answers `--help` and `--version`, and exits on an invalid value.
pub fn parse<T: Parser>() -> T {
    parse_from(T::command(), std::env::args_os())
}

/// Parses the settings of a subcommand that needs none of the program's own settings. Its name and description are those
/// that the program's help shows. Returns `None` when the command line does not ask for it.
pub fn parse_subcommand<T: Parser>(subcommand: &Command) -> Option<T> {
    let name = subcommand.get_name();
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(PathBuf::from).unwrap_or_default();
    let mut arguments = arguments.peekable();
    if arguments.peek().is_none_or(|first| first != name) {
        return None;
    }
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let mut command = T::command().bin_name(format!("{program} {name}"));
    // The description of flattened settings would be shown otherwise.
    if let Some(about) = subcommand.get_about() {
        command = command.about(about.clone());
    }
    Some(parse_from(command, arguments))
}

/// Like [`parse`], with the given command and arguments; the first one is the program's name.
fn parse_from<T: Parser>(command: Command, args: impl IntoIterator<Item = OsString>) -> T {
    try_parse(command, args).unwrap_or_else(|error| match error {
        SettingsError::HelpOrVersion(error) => error.exit(),
        SettingsError::Invalid(line) => refuse(line),
    })
}

/// Exits the process because of settings that are valid one by one but not together.
pub fn refuse(line: impl std::fmt::Display) -> ! {
    exit::exit_invalid_settings(line)
}

/// Why there are no settings.
enum SettingsError {
    /// `--help` or `--version` was given.
    HelpOrVersion(clap::Error),
    /// An error message of one line.
    Invalid(String),
}

fn try_parse<T: Parser>(
    command: Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<T, SettingsError> {
    let command = command.mut_args(ignore_empty_variable);
    let parsed = command.try_get_matches_from(args).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => SettingsError::HelpOrVersion(error),
        _ => SettingsError::Invalid(one_line(&error, &with_all_variables::<T>())),
    })
}

/// The command including variables that are empty, so that error messages can name them.
fn with_all_variables<T: Parser>() -> Command {
    let mut command = T::command();
    command.build();
    command
}

fn ignore_empty_variable(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(None::<&'static str>) } else { arg }
}

/// Clap's error as one line, with the name of the variable, which clap leaves out.
fn one_line(error: &clap::Error, command: &Command) -> String {
    let context = |kind| error.get(kind);
    let value = context(ContextKind::InvalidValue).map(ContextValue::to_string);
    match (error.kind(), context(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
            let (choices, others): (Vec<_>, Vec<_>) =
                missing.iter().partition(|arg| !values_of(arg, command).is_empty());
            let others: Vec<String> = others.into_iter().map(|arg| name_of(arg, command)).collect();
            let others = (!others.is_empty()).then(|| format!("{} must be set", others.join(", ")));
            let choices = choices.into_iter().map(|arg| {
                let values = values_of(arg, command).join(", ");
                format!("{} must be set to one of {values}", name_of(arg, command))
            });
            others.into_iter().chain(choices).collect::<Vec<_>>().join("; ")
        }
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(ContextValue::String(arg))) => {
            let (name, reason) = (name_of(arg, command), reason_of(error));
            match value {
                Some(value) if !is_secret(arg, command) => format!("{name} cannot be {value:?}: {reason}"),
                _ => format!("{name}: {reason}"),
            }
        }
        (ErrorKind::ArgumentConflict, Some(ContextValue::String(arg))) => {
            let others = conflicting_args(error).into_iter().chain([arg.as_str()]);
            let names: Vec<String> = others.map(|arg| name_of(arg, command)).collect();
            format!("{} cannot be set together", names.join(" and "))
        }
        _ => first_line_of(error),
    }
}

/// The arguments that conflict with the given one.
fn conflicting_args(error: &clap::Error) -> Vec<&str> {
    match error.get(ContextKind::PriorArg) {
        Some(ContextValue::String(other)) => vec![other],
        Some(ContextValue::Strings(others)) => others.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn reason_of(error: &clap::Error) -> String {
    match (error.get(ContextKind::ValidValue), std::error::Error::source(error)) {
        (Some(ContextValue::Strings(allowed)), _) => format!("must be one of {}", allowed.join(", ")),
        (_, Some(source)) => source.to_string(),
        _ => first_line_of(error),
    }
}

fn first_line_of(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// `PORT (--port)` for `--port <PORT>`.
fn name_of(usage: &str, command: &Command) -> String {
    let flag = usage.split(' ').next().unwrap_or(usage);
    match arg_of(usage, command).and_then(Arg::get_env) {
        Some(variable) => format!("{} ({flag})", variable.to_string_lossy()),
        None => flag.to_owned(),
    }
}

/// Returns the values of an argument that has a fixed list of them.
fn values_of(usage: &str, command: &Command) -> Vec<String> {
    let values = arg_of(usage, command).map(Arg::get_possible_values).unwrap_or_default();
    values.iter().map(|value| value.get_name().to_owned()).collect()
}

/// Returns true if the argument's value must never be printed.
fn is_secret(usage: &str, command: &Command) -> bool {
    arg_of(usage, command).is_some_and(Arg::is_hide_env_values_set)
}

fn arg_of<'a>(usage: &str, command: &'a Command) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.to_string() == usage)
}
