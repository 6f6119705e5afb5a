//! The pause before a request is repeated.

use std::time::{Duration, Instant};

use rand::random_range;
use tokio::time::sleep;

/// Pause when the answer has no `Retry-After`, or when no answer came.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(200);

/// The random part of a pause, as a share of it. It keeps buyers that were refused together from coming back together.
const JITTER: f64 = 0.25;

/// Returns the pause that an answer asks for, and a random part.
pub fn retry_pause(retry_after: Option<Duration>) -> Duration {
    let pause = retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
    pause + pause.mul_f64(random_range(0.0..JITTER))
}

/// Waits before the next try. Returns false at once when that would take until after the deadline.
pub async fn wait_to_retry(retry_after: Option<Duration>, deadline: Instant) -> bool {
    let pause = retry_pause(retry_after);
    let has_time = Instant::now() + pause <= deadline;
    if has_time {
        sleep(pause).await;
    }
    has_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn retry_ends_at_the_deadline() {
        let now = Instant::now();
        assert!(wait_to_retry(Some(Duration::ZERO), now + Duration::from_mins(1)).await);
        assert!(!wait_to_retry(Some(Duration::from_secs(9)), now + Duration::from_secs(5)).await);
        assert!(!wait_to_retry(None, now).await, "an answer without Retry-After has a pause, too");
    }

    #[test]
    fn pause_is_at_least_retry_after() {
        let second = Duration::from_secs(1);
        assert!((0..100).all(|_| (second..second * 2).contains(&retry_pause(Some(second)))));
    }
}
