//! Periods and waits of a coordinator.

use std::time::Duration;

use clap::Args;
use service::settings::{duration, positive_duration};

/// Shortest lease. A single request for it may take up to half of that before it times out.
const LEASE_DURATION_MIN: Duration = Duration::from_millis(500);

/// Time after which the function library of a release is removed if no process uses it. Within a day operators notice
/// that a release is bad and go back.
const LIBRARY_UNUSED_MAX: Duration = Duration::from_hours(24);

/// Periods and waits of a coordinator.
#[derive(Args, Clone, Copy, Debug)]
pub struct Timing {
    /// Time from one snapshot of all shards to the next
    #[arg(long, env, value_parser = positive_duration, default_value = "100ms")]
    pub snapshot_period: Duration,

    /// How long tokens may wait in a channel between two shards until the coordinator moves them on
    #[arg(long, env, value_parser = positive_duration, default_value = "1s")]
    pub redrive_after: Duration,

    /// Time from one rebalancing of tokens between shards, ahead of demand, to the next; 0ms for none
    #[arg(long, env, value_parser = duration, default_value = "100ms")]
    pub rebalance_period: Duration,

    /// Of several coordinators, how long one leads without renewing the lease: if it dies, another takes over within
    /// this time. At least 500ms
    #[arg(long, env, value_parser = lease_duration, default_value = "2s")]
    pub lease_duration: Duration,

    /// Time after the end of a sale until it is left alone and its metrics disappear. Longer than the clocks of Redis servers
    /// differ, and than Prometheus takes from one scrape to the next
    #[arg(long, env, value_parser = positive_duration, default_value = "1m")]
    pub rest_after: Duration,

    /// Time after which the function library of a release is removed if no process uses it
    #[arg(skip = LIBRARY_UNUSED_MAX)]
    pub library_unused_max: Duration,
}

fn lease_duration(raw: &str) -> Result<Duration, String> {
    match duration(raw) {
        Ok(lease) if lease < LEASE_DURATION_MIN => Err("must be at least 500ms".into()),
        lease => lease.map_err(|invalid| invalid.to_string()),
    }
}
