//! `cargo xtask loadtest`: a load test with a closed-loop crowd or an open-loop spike against a sale started with
//! `up`.
//!
//! The program is `loadtest/`. This module builds it, starts it in the folder of `up`, and waits for it.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use testkit::{binary::cargo, workspace_root};
use tokio::process::Command;

use crate::interruption::Interruption;

/// The variable that gives the program the folder of `up.json` and of its reports.
const FOLDER: &str = "LOADTEST_FOLDER";

/// Arguments of `cargo xtask loadtest`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The cargo profile that the program is built with.
    // Goose takes ten CPU minutes to build in `release` and two in `dev`. The `dev` profile is optimized enough for a
    // thousand users on the cores that the sale also runs on. It adds a fraction of a millisecond to latencies.
    #[arg(long, default_value = "dev")]
    profile: String,
    /// `rush`, `duplicates`, `browse`, `soak` or `spike`, with its options. `rush --help` lists them.
    #[arg(value_name = "SCENARIO", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    scenario: Vec<OsString>,
}

/// Returns the exit code of the program. Ctrl-C reaches the program as well. It still audits and reports, so this
/// waits for it.
pub(crate) async fn loadtest(options: Options) -> Result<ExitCode> {
    let mut interruption = Interruption::listen()?;
    let mut program = Command::from(program(&options)?).spawn().context("cargo does not run")?;
    let status = loop {
        tokio::select! {
            status = program.wait() => break status?,
            () = interruption.received() => {}
        }
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Builds the command. Cargo replaces itself with the program after the build, so the exit code is the program's.
fn program(options: &Options) -> Result<std::process::Command> {
    let mut program = cargo();
    program.args(["run", "--package", "loadtest", "--profile", &options.profile, "--"]);
    program.args(&options.scenario);
    // Relative paths in the options refer to the current directory.
    program.current_dir(std::env::current_dir()?);
    if std::env::var_os(FOLDER).is_none() {
        program.env(FOLDER, workspace_root().join(".local"));
    }
    Ok(program)
}
