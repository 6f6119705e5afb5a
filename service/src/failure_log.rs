//! Logs repeated failures once: when they start and when they end.

use std::collections::BTreeSet;

use rediscluster::CallError;

/// The operations that are failing, and were logged as such.
#[derive(Debug, Default)]
pub struct FailureLog {
    failing: BTreeSet<String>,
}

impl FailureLog {
    /// Records the outcome of one run of an operation. Logs it only if it differs from the run before.
    pub fn record(&mut self, what: String, error: Option<&CallError>) {
        match (self.is_change(&what, error.is_some()), error) {
            (true, Some(error)) => tracing::warn!(%error, "{what}: failing"),
            (true, None) => tracing::info!("{what}: works again"),
            (false, _) => {}
        }
    }

    fn is_change(&mut self, what: &str, fails: bool) -> bool {
        if fails { self.failing.insert(what.to_owned()) } else { self.failing.remove(what) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_logged_at_start_and_recovery() {
        let mut failures = FailureLog::default();
        let logged =
            [false, true, true, false, false].map(|fails| failures.is_change("list of sales", fails));
        assert_eq!(logged, [false, true, false, true, false]);
    }
}
