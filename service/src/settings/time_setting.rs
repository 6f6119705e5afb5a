//! Times in settings: a date, or a duration relative to now.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, datetime};
use rediscluster::EpochMs;

use super::duration;

/// A time as a setting expresses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSetting {
    /// An absolute time.
    At(EpochMs),
    /// This long after the start.
    After(Duration),
    /// This long before the start.
    Before(Duration),
}

/// The value is not a valid time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be ISO 8601 with Z or an offset (2026-11-21T20:00:00Z), seconds or milliseconds since 1970, `now`, or relative to now (1m, 90s, -5m)"
)]
pub struct InvalidTime;

/// Epoch numbers from here on are milliseconds, smaller ones are seconds: this number is March 1973 in milliseconds,
/// and the year 5138 in seconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

impl TimeSetting {
    /// Returns the absolute time, for a process that started at `now`.
    pub fn resolve(self, now: EpochMs) -> EpochMs {
        match self {
            Self::At(at) => at,
            Self::After(wait) => now.saturating_add(wait.as_millis() as u64),
            Self::Before(ago) => now.saturating_sub(ago.as_millis() as u64),
        }
    }
}

impl FromStr for TimeSetting {
    type Err = InvalidTime;

    fn from_str(raw: &str) -> Result<Self, InvalidTime> {
        if raw == "now" {
            return Ok(Self::After(Duration::ZERO));
        }
        let fixed = || parse_epoch(raw).or_else(|| parse_iso8601(raw)).map(Self::At);
        parse_relative(raw).or_else(fixed).ok_or(InvalidTime)
    }
}

fn parse_relative(raw: &str) -> Option<TimeSetting> {
    match raw.strip_prefix('-') {
        Some(ago) => duration(ago).ok().map(TimeSetting::Before),
        None => duration(raw.strip_prefix('+').unwrap_or(raw)).ok().map(TimeSetting::After),
    }
}

fn parse_epoch(raw: &str) -> Option<EpochMs> {
    let is_number = !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number.then(|| raw.parse().ok())??;
    Some(if number < MILLISECONDS_FROM { number * 1_000 } else { number })
}

fn parse_iso8601(raw: &str) -> Option<EpochMs> {
    // `Timestamp` ignores a time zone in brackets, which may contradict the offset.
    if raw.contains('[') {
        return None;
    }
    match raw.parse::<Timestamp>() {
        Ok(timestamp) => timestamp.as_millisecond().try_into().ok(),
        Err(_) => parse_last_day(raw),
    }
}

/// Parses a time in the last hours of the year 9999, which `Timestamp` cannot represent.
fn parse_last_day(raw: &str) -> Option<EpochMs> {
    let time: DateTime = raw.strip_suffix('Z').filter(|_| raw.starts_with("9999-12-3"))?.parse().ok()?;
    let is_complete = raw.contains('T');
    let since_epoch = time.duration_since(datetime(1970, 1, 1, 0, 0, 0, 0)).as_millis();
    is_complete.then(|| since_epoch.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T20:00:00Z
    const NOW: EpochMs = 1_795_291_200_000;

    fn resolved(raw: &str) -> EpochMs {
        raw.parse::<TimeSetting>().unwrap().resolve(NOW)
    }

    #[test]
    fn time_setting_accepts_all_documented_forms() {
        for same in
            ["2026-11-21T20:00:00Z", "2026-11-21T21:00:00+01:00", "1795291200", "1795291200000", "now", "0s"]
        {
            assert_eq!(resolved(same), NOW, "{same}");
        }
        for (raw, after_ms) in
            [("1m", 60_000), ("90s", 90_000), ("2h", 7_200_000), ("+30s", 30_000), ("250ms", 250)]
        {
            assert_eq!(resolved(raw), NOW + after_ms, "{raw}");
        }
        assert_eq!(resolved("-5m"), NOW - 300_000);
        assert_eq!(resolved("2026-11-21T20:00:00.25Z"), NOW + 250);
        assert_eq!(resolved("9999-12-31T23:59:59Z"), 253_402_300_799_000);
    }

    #[test]
    fn ambiguous_time_settings_are_refused() {
        let open = [
            "",
            "soon",
            "2026-11-21",
            "2026-11-21T20:00:00",
            "20:00",
            "-",
            "+",
            "1969-12-31T23:59:59Z",
            "1.5",
            "--5m",
            "2026-11-21T20:00:00+05:00[Europe/Berlin]",
            "2026-11-21T20:00:00Z[UTC]",
            "9999-12-31Z",
        ];
        for raw in open {
            assert_eq!(raw.parse::<TimeSetting>(), Err(InvalidTime), "{raw}");
        }
    }
}
