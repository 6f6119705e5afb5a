//! `flashsale-node-sabotaged`: the same program, over a library that can be told to break its promises.

use std::process::ExitCode;

#[path = "main.rs"]
mod node_program;

fn main() -> ExitCode {
    node_program::main()
}
