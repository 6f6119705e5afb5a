//! Commands of a developer: `cargo xtask up`, `down`, `test`, `bench`.
//!
//! What runs and breaks processes is in `testkit`; here is only what a person types and reads.

mod bench;
mod down;
mod install;
mod running;
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
    /// Measures the figures of the README on this machine.
    Bench(bench::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up(options) => up::up(options).await,
        Command::Down(options) => down::down(&options).await,
        Command::Test(options) => test::test(&options),
        Command::Bench(options) => bench::bench(options).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
