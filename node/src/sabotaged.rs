//! `flashsale-node-sabotaged`: the same program, built with protections that `SABOTAGE` can switch off.

use std::process::ExitCode;

#[path = "main.rs"]
mod node_program;

fn main() -> ExitCode {
    node_program::main()
}
