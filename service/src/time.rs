//! The wall clock, and how times are written.
//!
//! This clock is used for logs and for settings relative to the start. Redis' clock decides when a sale is open.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use jiff::civil::{DateTime, datetime};
use rediscluster::EpochMs;

const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);

/// Returns the time of this machine's clock.
pub fn now() -> EpochMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    since_epoch.as_millis() as EpochMs
}

/// Formats a time as ISO 8601 in UTC: `2026-11-21T20:00:00.000Z`. Times that cannot be represented, beyond the year
/// 9999, become the latest possible one.
pub fn iso8601(at: EpochMs) -> String {
    let since_epoch = i64::try_from(at).ok().map(SignedDuration::from_millis);
    let time = since_epoch.and_then(|since| EPOCH.checked_add(since).ok());
    format!("{:.3}Z", time.unwrap_or(DateTime::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(iso8601(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso8601(1_795_291_200_007), "2026-11-21T20:00:00.007Z");
        assert_eq!(iso8601(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
