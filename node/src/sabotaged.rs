//! `flashsale-node-sabotaged`: the same program with its fail points compiled in. Used by chaos, and by tests that expect
//! the audit to fail.
//!
//! `SABOTAGE` selects one fail point by its name. A point `no-…` removes a protection; a point `die-…` kills the
//! process, and one that ends with `-sent` does so a moment later, while this node does not know the outcome.

use std::{env, process, process::ExitCode, thread, time::Duration};

#[path = "main.rs"]
mod node_program;

/// By this time, bytes handed to a connection have been sent.
const SEND_DELAY: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    let point = env::var("SABOTAGE").unwrap_or_default();
    let configured = match (point.starts_with("die-"), point.ends_with("-sent")) {
        (false, _) => fail::cfg(point, "return"),
        (true, false) => fail::cfg_callback(point, || process::abort()),
        (true, true) => fail::cfg_callback(point, || {
            thread::spawn(|| {
                thread::sleep(SEND_DELAY);
                process::abort();
            });
        }),
    };
    configured.expect("these actions are valid");
    node_program::main()
}
