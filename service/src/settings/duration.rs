//! Durations in settings: `250ms`, `2s`, `1h 30m`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// The value is not a valid duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It is not a number with a unit.
    #[error("must be a number with a unit (ms, s, m, h, d), like 250ms, 2s or 1h 30m")]
    Form,
    /// It is 0 where a positive duration is required.
    #[error("must be longer than 0")]
    Zero,
}

/// Parses a duration in [jiff's friendly format](https://docs.rs/jiff/latest/jiff/fmt/friendly/index.html). A day has 24 hours.
///
/// # Errors
/// Fails when the text has another form, is negative, or names a unit whose length varies.
pub fn duration(raw: &str) -> Result<Duration, InvalidDuration> {
    let span: Result<Span, _> = raw.parse();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    duration.and_then(Duration::try_from).map_err(|_| InvalidDuration::Form)
}

/// Parses a duration that must not be 0: timeouts, periods.
///
/// # Errors
/// Fails when the text has another form, and for 0.
pub fn positive_duration(raw: &str) -> Result<Duration, InvalidDuration> {
    duration(raw)
        .and_then(|duration| if duration.is_zero() { Err(InvalidDuration::Zero) } else { Ok(duration) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_a_number_with_a_unit() {
        for (raw, ms) in [
            ("0s", 0),
            ("250ms", 250),
            ("2s", 2_000),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1.5s", 1_500),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(duration(raw), Ok(Duration::from_millis(ms)), "{raw}");
        }
    }

    #[test]
    fn other_duration_forms_are_refused() {
        for raw in ["", "2", "s", "-1s", "1 month", "s2", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(raw), Err(InvalidDuration::Form), "{raw}");
        }
        assert_eq!(positive_duration("0ms"), Err(InvalidDuration::Zero));
    }
}
