//! Developer commands: `cargo xtask up`, `down`, `test`, `browser`, `bench`, `chaos`, `fuzz`, `loadtest`.
//!
//! `testkit` starts and breaks processes. This crate contains only the command line and its output.

#[macro_use]
mod output;

mod bench;
mod browser;
mod chaos;
mod down;
mod fuzz;
mod install;
mod interruption;
mod loadtest;
mod running;
mod scratch;
mod steps;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs the flash sale on this machine, and checks it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a real sale on this machine: Redis Cluster, coordinator, nodes and nginx. Ctrl-C stops it.
    ///
    /// Builds the programs and installs missing packages. The folder `.local` holds data, logs and `up.json`, which
    /// lists for scripts all services and their addresses.
    Up(up::Options),
    /// Stops a sale that was started with `up --detach`.
    Down(down::Options),
    /// Runs every check, as CI does: format, lints, and all tests on two kinds of Redis server.
    Test(test::Options),
    /// Runs the browser tests: buyers with a real browser against a real sale.
    Browser(browser::Options),
    /// Measures the figures of `docs/performance.md` on this machine.
    Bench(bench::Options),
    /// Attacks a real sale under load by a schedule derived from a seed, then audits it.
    ///
    /// Exits with 0 if every promise held, 2 if a promise was broken, and 1 if there is no verdict.
    Chaos(chaos::Options),
    /// Tests the API of a real sale with requests generated from its own OpenAPI document, and checks each response.
    Fuzz(fuzz::Options),
    /// Runs a load test against a sale started with `up`, and audits the answers that buyers got.
    ///
    /// Exits with 0 if all is well, 2 if a promise was broken, 3 if a threshold was missed, and 1 if there is no
    /// verdict.
    Loadtest(loadtest::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up(options) => up::up(options).await.map(|()| ExitCode::SUCCESS),
        Command::Down(options) => down::down(&options).await.map(|()| ExitCode::SUCCESS),
        Command::Test(options) => test::test(&options).map(|()| ExitCode::SUCCESS),
        Command::Browser(options) => browser::browser(options).await.map(|()| ExitCode::SUCCESS),
        Command::Bench(options) => bench::bench(options).await.map(|()| ExitCode::SUCCESS),
        Command::Chaos(options) => chaos::chaos(options).await,
        Command::Fuzz(options) => fuzz::fuzz(options).await.map(|()| ExitCode::SUCCESS),
        Command::Loadtest(options) => loadtest::loadtest(options).await,
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            complain!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
