//! Health of a lane's primary, shared between the lane and its users: whether it answers, how fast, and whether it has
//! been demoted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rediscluster::{Address, CallError};
use tokio::sync::Notify;

pub(super) struct PrimaryHealth {
    address: Address,
    /// Wakes the task that reads the cluster map. A lane notifies it when a reply contradicts the map.
    map_refresh: Arc<Notify>,
    suspect: AtomicBool,
    /// Duration of a pipeline, microseconds. A moving average in which each new value has a weight of one eighth.
    pipeline_time_us: AtomicU64,
    demoted: Notify,
}

impl PrimaryHealth {
    pub(super) fn new(address: Address, map_refresh: Arc<Notify>) -> Self {
        Self {
            address,
            map_refresh,
            suspect: AtomicBool::new(false),
            pipeline_time_us: AtomicU64::new(0),
            demoted: Notify::new(),
        }
    }

    /// Returns the average duration of a pipeline.
    pub(super) fn pipeline_time(&self) -> Duration {
        Duration::from_micros(self.pipeline_time_us.load(Ordering::Relaxed))
    }

    /// Adds a measured duration. Only the lane itself calls this, so there are no concurrent writers.
    pub(super) fn record_pipeline_time(&self, pipeline_time: Duration) {
        let before = self.pipeline_time_us.load(Ordering::Relaxed);
        let after = (7 * before + u64::try_from(pipeline_time.as_micros()).unwrap_or(u64::MAX / 8)) / 8;
        self.pipeline_time_us.store(after, Ordering::Relaxed);
    }

    /// Returns true while the primary or its replicas do not answer.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Marks the primary as suspect. Logs only the first time, because waiting callers retry many times a second.
    pub(super) fn mark_suspect(&self, error: &CallError) {
        if !self.suspect.swap(true, Ordering::Relaxed) {
            tracing::warn!(redis.address = %self.address, error = %error, "a primary is suspect");
        }
        self.request_map_refresh();
    }

    pub(super) fn mark_healthy(&self) {
        if self.is_suspect() {
            self.suspect.store(false, Ordering::Relaxed);
            tracing::info!(redis.address = %self.address, "the primary answers again");
        }
    }

    /// Requests a read of the cluster map, which may be out of date.
    pub(super) fn request_map_refresh(&self) {
        self.map_refresh.notify_one();
    }

    /// Signals that the server is no longer primary.
    pub(super) fn demote(&self) {
        self.demoted.notify_one();
    }

    /// Completes when the primary is demoted.
    pub(super) async fn demoted(&self) {
        self.demoted.notified().await;
    }
}
