//! How the program ends: its exit code, and its last words on standard error.

use std::{fmt::Display, process::ExitCode};

use anyhow::Result;

/// An option that cannot be, as with the other programs.
const OPTIONS: u8 = 64;

/// What a run that came to its end has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunResult {
    Clean,
    /// A promise was broken.
    Broken,
    /// Every promise held, but a threshold was missed.
    Missed,
}

impl From<RunResult> for ExitCode {
    fn from(ending: RunResult) -> Self {
        Self::from(match ending {
            RunResult::Clean => 0,
            RunResult::Broken => 2,
            RunResult::Missed => 3,
        })
    }
}

/// The exit code of a run. A failure is told in one line.
pub(crate) fn code(result: Result<RunResult>) -> ExitCode {
    result.map_or_else(
        |error| {
            say(format_args!("{error:#}"));
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

/// Ends the process over an option that cannot be, in clap's words: it names the option and what it may be.
pub(crate) fn over_options(error: &clap::Error) -> ! {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    say(line.trim_start_matches("error: "));
    std::process::exit(OPTIONS.into())
}

fn say(line: impl Display) {
    eprintln!("error: {line}");
}
