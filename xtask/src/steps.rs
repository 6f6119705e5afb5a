//! Progress output: one line per step, with the time since the start.

use std::time::Instant;

/// Prints steps as they finish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    began: Instant,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn done(self, step: &str) {
        say!("{:6.1} s  {step}", self.began.elapsed().as_secs_f64());
    }
}
