//! The thresholds of a run.

use std::time::Duration;

use crate::tally::{Counts, Latency};

/// Upper limits for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) p95: Duration,
    pub(crate) errors: u64,
}

/// A limit and the measured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) limit: String,
    pub(crate) found: String,
    pub(crate) is_met: bool,
}

impl Limits {
    /// Compares a run with the limits. The latency limit applies to each kind of request separately: many fast status
    /// requests do not compensate for slow purchases.
    pub(crate) fn check(&self, counts: &Counts, latencies: &[Latency]) -> Vec<Check> {
        let slowest = latencies.iter().max_by_key(|latency| latency.p95);
        let p95 = slowest.map(|latency| latency.p95).unwrap_or_default();
        let name = slowest.map_or("no requests", |latency| latency.name);
        vec![
            Check {
                what: "p95 of each kind",
                limit: format!("at most {}", millis(self.p95)),
                found: format!("{} ({name})", millis(p95)),
                is_met: p95 <= self.p95 && slowest.is_some(),
            },
            Check {
                what: "errors",
                limit: format!("at most {}", self.errors),
                found: counts.errors().to_string(),
                is_met: counts.errors() <= self.errors,
            },
        ]
    }
}

/// Formats a time in milliseconds.
pub(crate) fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use buyers::AnswerKind;

    const LIMITS: Limits = Limits { p95: Duration::from_millis(100), errors: 1 };

    fn latency(name: &'static str, p95_ms: u64) -> Latency {
        let [p50, max] = [Duration::ZERO, Duration::from_secs(1)];
        Latency { name, requests: 1, p50, p95: Duration::from_millis(p95_ms), p99: max, max }
    }

    fn met(limits: Limits, unexpected: u64, latencies: &[Latency]) -> Vec<bool> {
        let outcomes = BTreeMap::from([(AnswerKind::Unexpected, unexpected), (AnswerKind::Busy, 100)]);
        let counts = Counts { outcomes, ..Counts::default() };
        limits.check(&counts, latencies).iter().map(|check| check.is_met).collect()
    }

    #[test]
    fn value_at_the_limit_is_met() {
        assert_eq!(met(LIMITS, 1, &[latency("status", 100)]), [true, true]);
    }

    #[test]
    fn slowest_kind_of_request_counts() {
        assert_eq!(met(LIMITS, 0, &[latency("status", 1), latency("purchase", 101)]), [false, true]);
    }

    #[test]
    fn error_above_the_limit_is_missed() {
        assert_eq!(met(LIMITS, 2, &[latency("status", 1)]), [true, false]);
    }

    #[test]
    fn run_without_requests_misses_the_latency_limit() {
        assert_eq!(met(LIMITS, 0, &[]), [false, true]);
    }
}
