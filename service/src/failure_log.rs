//! Failures that come back with every round, told when they come and when they go.

use std::collections::BTreeSet;

use stock::calls::CallError;

/// What is failing, and has been told.
#[derive(Debug, Default)]
pub struct FailureLog {
    failing: BTreeSet<String>,
}

impl FailureLog {
    /// Takes in how something went this time. The log is told of a change.
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
