//! Exit codes of the program, and its error message.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;

/// Exit code for an invalid option, as in the other programs.
const USAGE_ERROR: u8 = 64;

/// Result of a finished run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunResult {
    Clean,
    /// A promise was broken.
    Broken,
    /// Every promise held, but a threshold was missed.
    Missed,
}

impl From<RunResult> for ExitCode {
    fn from(result: RunResult) -> Self {
        Self::from(match result {
            RunResult::Clean => 0,
            RunResult::Broken => 2,
            RunResult::Missed => 3,
        })
    }
}

/// Returns the exit code of a run. Prints an error in one line.
pub(crate) fn exit_code(result: Result<RunResult>) -> ExitCode {
    result.map_or_else(
        |error| {
            print_error(format_args!("{error:#}"));
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

/// Ends the process because of an invalid option. Prints clap's message, which names the option and its valid values.
pub(crate) fn exit_with_usage_error(error: &clap::Error) -> ! {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    print_error(line.trim_start_matches("error: "));
    std::process::exit(USAGE_ERROR.into())
}

fn print_error(line: impl Display) {
    writeln!(io::stderr(), "error: {line}").ok();
}
