//! `cargo xtask loadtest`: a crowd, or an open-loop spike, against what `up` runs.
//!
//! The program is `loadtest/`; here it is only built, started where `up` keeps its files, and waited for.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use testkit::{binary::cargo, workspace_root};
use tokio::process::Command;

use crate::interruption::Interruption;

/// What the program takes for the folder of `up.json` and of reports, unless it is told another.
const FOLDER: &str = "LOADTEST_FOLDER";

/// What `loadtest` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The cargo profile that the program is built with.
    // Goose takes ten CPU minutes to build for a release, and two for `dev`, which is optimised enough for a thousand
    // users on the cores that the sale runs on, too. What it adds to latencies is a fraction of a millisecond.
    #[arg(long, default_value = "dev")]
    profile: String,
    /// `rush`, `duplicates`, `browse`, `soak` or `spike`, and its options; `rush --help` lists them.
    #[arg(value_name = "SCENARIO", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    scenario: Vec<OsString>,
}

/// Ends as the program ends. Ctrl-C reaches that one, too: it still audits and reports, so it is waited for.
pub(crate) async fn loadtest(options: Options) -> Result<ExitCode> {
    let mut interruption = Interruption::listen()?;
    let mut program = Command::from(program(&options)?).spawn().context("cargo does not run")?;
    let status = loop {
        tokio::select! {
            status = program.wait() => break status?,
            () = interruption.comes() => {}
        }
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Cargo becomes the program, once it is built: the exit code is the program's own.
fn program(options: &Options) -> Result<std::process::Command> {
    let mut program = cargo();
    program.args(["run", "--quiet", "--package", "loadtest", "--profile", &options.profile, "--"]);
    program.args(&options.scenario);
    // Paths among the options are meant from where they were typed.
    program.current_dir(std::env::current_dir()?);
    if std::env::var_os(FOLDER).is_none() {
        program.env(FOLDER, workspace_root().join(".local"));
    }
    Ok(program)
}
