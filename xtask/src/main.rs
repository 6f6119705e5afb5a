//! Commands of a developer: `cargo xtask up`, `down`, `test`, `browser`, `bench`, `chaos`, `fuzz`, `loadtest`.
//!
//! What runs and breaks processes is in `testkit`; here is only what a person types and reads.

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
    /// Opens a real sale here: Redis Cluster, coordinator, nodes and nginx, until Ctrl-C.
    ///
    /// Builds what is to run and installs what is missing. Data, logs and `up.json`, which tells scripts what runs
    /// where, lie in the folder `.local`.
    Up(up::Options),
    /// Stops what `up --detach` left running.
    Down(down::Options),
    /// Runs every check there is, as CI does: format, lints, and all tests on two kinds of Redis server.
    Test(test::Options),
    /// Tells the stories of buyers with a real browser, in front of a real sale.
    Browser(browser::Options),
    /// Measures the figures of the README on this machine.
    Bench(bench::Options),
    /// Attacks a real sale under load by a schedule made from a seed, then audits it.
    ///
    /// Ends with exit code 0 if every promise held, 2 if one was broken, and 1 if there is no verdict.
    Chaos(chaos::Options),
    /// Questions the API of a real sale by its own description, and holds each answer against it.
    Fuzz(fuzz::Options),
    /// Loads what `up` runs like a crowd, and audits what buyers were told.
    ///
    /// Ends with exit code 0 if all is well, 2 if a promise was broken, 3 if a threshold was missed, and 1 if there is no
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
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
