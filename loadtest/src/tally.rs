//! Counts outcomes, latencies and users during a run.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use buyers::AnswerKind;
use hdrhistogram::Histogram;

/// Upper bound of recorded latencies, longer than the time limit of a request.
const LATENCY_MAX: Duration = Duration::from_mins(1);
/// Significant digits of recorded latencies: 100 ms and 101 ms are distinguished.
const DIGITS: u8 = 3;

/// Number of errors that are listed in full. One cause can produce thousands of them.
const ERRORS_LISTED_MAX: usize = 5;
/// Length limit of a listed error, in characters.
const ERROR_CHARS_MAX: usize = 300;

/// Counters of one run.
#[derive(Debug)]
pub(crate) struct Tally {
    began: Instant,
    counts: Mutex<Counts>,
    latencies: Mutex<BTreeMap<&'static str, Histogram<u64>>>,
}

/// Values of the counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) elapsed: Duration,
    pub(crate) users: u64,
    pub(crate) users_max: u64,
    pub(crate) requests: u64,
    /// Attempts given up without a definite answer.
    pub(crate) gave_up: u64,
    pub(crate) outcomes: BTreeMap<AnswerKind, u64>,
    /// The first errors, in full.
    pub(crate) errors_listed: Vec<String>,
}

/// Latencies of one kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) name: &'static str,
    pub(crate) requests: u64,
    pub(crate) p50: Duration,
    pub(crate) p95: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Tally {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), counts: Mutex::default(), latencies: Mutex::default() }
    }

    /// Counts a request of this kind with its answer, or without one.
    pub(crate) fn answered(&self, name: &'static str, kind: AnswerKind, latency: Duration) {
        let mut counts = lock(&self.counts);
        counts.requests += 1;
        *counts.outcomes.entry(kind).or_default() += 1;
        let mut latencies = lock(&self.latencies);
        latencies.entry(name).or_insert_with(histogram).saturating_record(micros(latency));
    }

    /// Keeps the description of an error, if it is one of the first.
    pub(crate) fn record_error(&self, what: impl FnOnce() -> String) {
        let errors_listed = &mut lock(&self.counts).errors_listed;
        if errors_listed.len() < ERRORS_LISTED_MAX {
            errors_listed.push(what().chars().take(ERROR_CHARS_MAX).collect());
        }
    }

    pub(crate) fn gave_up(&self) {
        lock(&self.counts).gave_up += 1;
    }

    pub(crate) fn user_started(&self) {
        let mut counts = lock(&self.counts);
        counts.users += 1;
        counts.users_max = counts.users_max.max(counts.users);
    }

    pub(crate) fn user_stopped(&self) {
        lock(&self.counts).users -= 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { elapsed: self.began.elapsed(), ..lock(&self.counts).clone() }
    }

    pub(crate) fn latencies(&self) -> Vec<Latency> {
        lock(&self.latencies).iter().map(|(name, histogram)| Latency::of(name, histogram)).collect()
    }
}

impl Counts {
    pub(crate) fn of(&self, kind: AnswerKind) -> u64 {
        self.outcomes.get(&kind).copied().unwrap_or_default()
    }

    /// Returns the number of errors: failed requests, and buyers who gave up.
    pub(crate) fn errors(&self) -> u64 {
        let wrong = self.outcomes.iter().filter(|(kind, _)| kind.is_error());
        wrong.map(|(_, count)| count).sum::<u64>() + self.gave_up
    }
}

impl Latency {
    fn of(name: &'static str, histogram: &Histogram<u64>) -> Self {
        let quantile = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        Self {
            name,
            requests: histogram.len(),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: Duration::from_micros(histogram.max()),
        }
    }
}

/// Creates a histogram of microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, micros(LATENCY_MAX), DIGITS).expect("bounds and digits are in range")
}

/// Converts to microseconds, limited to the range of a histogram.
pub(crate) fn micros(latency: Duration) -> u64 {
    latency.min(LATENCY_MAX).as_micros() as u64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_by_kind() {
        let tally = Tally::begin();
        for ms in 1..=100 {
            tally.answered("status", AnswerKind::Data, Duration::from_millis(ms));
        }
        tally.answered("purchase", AnswerKind::SoldOut, Duration::from_hours(1));

        let latencies = tally.latencies();
        let [purchase, status] = &latencies[..] else { panic!("{latencies:?}") };
        assert_eq!((purchase.name, purchase.requests), ("purchase", 1));
        assert_eq!((status.name, status.requests), ("status", 100));
        let p95 = status.p95.as_secs_f64() * 1e3;
        assert!((94.9..95.2).contains(&p95), "{p95} ms");
        assert!(purchase.max >= Duration::from_secs(59), "the longest latency is kept");
    }

    #[test]
    fn rejection_is_no_error_and_giving_up_is() {
        let tally = Tally::begin();
        for kind in AnswerKind::OUTCOMES {
            tally.answered("purchase", kind, Duration::from_millis(1));
        }
        assert_eq!(tally.counts().errors(), 5, "no sale, csrf refused, no answer, timed out, unexpected");
        tally.gave_up();
        assert_eq!(tally.counts().errors(), 6);
        assert_eq!(tally.counts().requests, AnswerKind::OUTCOMES.len() as u64);
    }

    #[test]
    fn first_errors_are_kept_and_shortened() {
        let tally = Tally::begin();
        (0..100).for_each(|n| tally.record_error(|| format!("{n} {}", "x".repeat(10_000))));
        let errors_listed = tally.counts().errors_listed;
        assert_eq!(errors_listed.len(), ERRORS_LISTED_MAX);
        assert!(errors_listed[0].starts_with("0 x") && errors_listed[0].len() == ERROR_CHARS_MAX);
    }

    #[test]
    fn highest_number_of_users_is_kept() {
        let tally = Tally::begin();
        tally.user_started();
        tally.user_started();
        tally.user_stopped();
        tally.user_started();
        assert_eq!((tally.counts().users, tally.counts().users_max), (2, 2));
    }
}
