//! When a sale whose delivery failed is tried again.

use std::time::Duration;

use super::sink::{Failure, Reason};

/// Pause after the first failure. It doubles with each further one.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause, so that a sink that works again is used soon.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest pause after a refusal that only a person resolves.
const LONGEST_REFUSED: Duration = Duration::from_mins(5);
/// Longest pause that a sink may demand.
const LONGEST_DEMANDED: Duration = Duration::from_hours(1);

/// Returns the pause after this many failures in a row, with random jitter of up to half, or `None` if there is no
/// further try.
pub(crate) fn pause(failure: &Failure, failures: u32) -> Option<Duration> {
    let longest = match failure.reason {
        Reason::Gone => return None,
        Reason::Refused => LONGEST_REFUSED,
        _ => LONGEST,
    };
    let demanded = failure.retry_after.unwrap_or_default().min(LONGEST_DEMANDED);
    Some(exponential(FIRST, longest, failures).max(demanded))
}

/// Returns a pause that doubles with each try, with random jitter of up to half.
pub(crate) fn exponential(first: Duration, longest: Duration, tries: u32) -> Duration {
    let full = first.saturating_mul(1 << tries.clamp(1, 16).saturating_sub(1)).min(longest);
    full.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let failure = Failure::new(Reason::Timeout, "");
        let within = |failures, least_ms, most_ms| {
            let pause = pause(&failure, failures).unwrap();
            assert!((Duration::from_millis(least_ms)..Duration::from_millis(most_ms)).contains(&pause));
        };
        within(1, 125, 250);
        within(3, 500, 1_000);
        within(u32::MAX, 15_000, 30_000);
    }

    #[test]
    fn pause_depends_on_the_failure() {
        let refused = Failure::new(Reason::Refused, "");
        assert!(pause(&refused, 20).unwrap() >= Duration::from_secs(150));
        assert_eq!(pause(&Failure::new(Reason::Gone, ""), 1), None);
        let mut busy = Failure::new(Reason::Unavailable, "");
        busy.retry_after = Some(Duration::from_secs(7));
        assert_eq!(pause(&busy, 1), Some(Duration::from_secs(7)));
        busy.retry_after = Some(Duration::MAX);
        assert_eq!(pause(&busy, 1), Some(LONGEST_DEMANDED));
    }
}
