//! Durations in settings: `250ms`, `2s`, `1m`.

use std::time::Duration;

/// The value is not a valid duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It is not a number with a unit.
    #[error("must be a whole number with a unit (ms, s, m, h, d), like 250ms or 2s")]
    Form,
    /// It is 0 where a positive duration is required.
    #[error("must be longer than 0")]
    Zero,
}

/// Parses a duration: a whole number and its unit.
///
/// # Errors
/// Fails when the text has another form.
pub fn duration(raw: &str) -> Result<Duration, InvalidDuration> {
    let unit_at = raw.find(|char: char| !char.is_ascii_digit()).ok_or(InvalidDuration::Form)?;
    let (amount, unit) = raw.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(InvalidDuration::Form),
    };
    let ms = amount.parse::<u64>().ok().and_then(|amount| amount.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or(InvalidDuration::Form)
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
        for (raw, ms) in
            [("0s", 0), ("250ms", 250), ("2s", 2_000), ("1m", 60_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(raw), Ok(Duration::from_millis(ms)), "{raw}");
        }
    }

    #[test]
    fn other_duration_forms_are_refused() {
        for raw in [
            "",
            "2",
            "s",
            "-1s",
            "1.5s",
            "2 s",
            "2sec",
            "s2",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(raw), Err(InvalidDuration::Form), "{raw}");
        }
        assert_eq!(positive_duration("0ms"), Err(InvalidDuration::Zero));
    }
}
