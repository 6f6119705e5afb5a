//! What a lane and those around it tell each other: whether its primary answers and how fast, and when its reign
//! ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use stock::calls::CallError;
use stock::topology::Address;
use tokio::sync::Notify;

pub(super) struct PrimaryHealth {
    address: Address,
    /// Wakes whoever watches the cluster's map: a lane saw something that the map does not explain.
    map_refresh: Arc<Notify>,
    suspect: AtomicBool,
    /// How long a pipeline takes, in microseconds: each new one counts for an eighth.
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

    /// How long a pipeline takes.
    pub(super) fn pipeline_time(&self) -> Duration {
        Duration::from_micros(self.pipeline_time_us.load(Ordering::Relaxed))
    }

    /// A pipeline took so long. Only its lane says so: nobody else writes in between.
    pub(super) fn record_pipeline_time(&self, pipeline_time: Duration) {
        let before = self.pipeline_time_us.load(Ordering::Relaxed);
        let after = (7 * before + u64::try_from(pipeline_time.as_micros()).unwrap_or(u64::MAX / 8)) / 8;
        self.pipeline_time_us.store(after, Ordering::Relaxed);
    }

    /// Whether its primary does not answer, or its replicas do not.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Told once when it begins: those who wait come again many times a second.
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

    /// The map may be out of date.
    pub(super) fn request_map_refresh(&self) {
        self.map_refresh.notify_one();
    }

    /// The primary serves no slots any more.
    pub(super) fn demote(&self) {
        self.demoted.notify_one();
    }

    /// Completes when the primary is deposed.
    pub(super) async fn demoted(&self) {
        self.demoted.notified().await;
    }
}
