//! The parts that all controllers use: connections, records and the lease. Keeps the cluster's map current.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rediscluster::{CallError, Cluster, ConnectOptions};
use tokio::time::Instant;

use crate::failure_log::FailureLog;
use crate::lease_holder::Leadership;
use crate::records::Records;
use crate::rounds::{Stop, every};
use crate::timing::Timing;

/// Longest wait for a reply when reading shards. A primary that does not answer by then is asked again in the next
/// round, and must not delay the results of the others.
const READ_TIMEOUT: Duration = Duration::from_millis(250);

/// Longest time between two refreshes of the cluster's map. A failover is noticed earlier, by its errors.
const MAP_AGE_MAX: Duration = Duration::from_millis(500);
/// Time between two checks whether the map is suspect.
const MAP_CHECK: Duration = Duration::from_millis(100);

/// The parts that all controllers use.
pub(crate) struct Context {
    /// For reads: with short timeouts, and never blocked by a barrier.
    pub(crate) reads: Arc<Cluster>,
    pub(crate) writes: Arc<Cluster>,
    pub(crate) timing: Timing,
    pub(crate) records: Records,
    pub(crate) leadership: Leadership,
    map_is_suspect: AtomicBool,
}

/// Options for connections that only read: the same servers with shorter timeouts.
pub fn read_options(options: &ConnectOptions) -> ConnectOptions {
    ConnectOptions {
        connect_timeout: options.connect_timeout.min(READ_TIMEOUT),
        response_timeout: options.response_timeout.min(READ_TIMEOUT),
        barrier_timeout: Duration::ZERO,
        ..options.clone()
    }
}

impl Context {
    pub(crate) fn new(name: String, reads: Cluster, writes: Cluster, timing: Timing) -> Self {
        let (reads, writes) = (Arc::new(reads), Arc::new(writes));
        let records = Records::new(reads.clone(), writes.clone());
        let (leadership, map_is_suspect) = (Leadership::new(name), AtomicBool::default());
        Self { reads, writes, timing, records, leadership, map_is_suspect }
    }

    /// Logs a failure when it starts and when it ends. It may mean that the map is old.
    pub(crate) fn log_failure(&self, failures: &mut FailureLog, what: String, error: Option<&CallError>) {
        error.into_iter().for_each(|error| self.suspect_map(error));
        failures.record(what, error);
    }

    /// Has the map refreshed soon if this failure may mean that it is old.
    pub(crate) fn suspect_map(&self, error: &CallError) {
        if error.is_transient() {
            self.map_is_suspect.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) async fn run(&self, stop: Stop) {
        let mut refreshed_at = Instant::now();
        every(MAP_CHECK, stop, async || self.follow_map(&mut refreshed_at).await).await;
    }

    async fn follow_map(&self, refreshed_at: &mut Instant) {
        if !self.map_is_suspect.swap(false, Ordering::Relaxed) && refreshed_at.elapsed() < MAP_AGE_MAX {
            return;
        }
        *refreshed_at = Instant::now();
        let (reads, writes) = tokio::join!(self.reads.refresh(), self.writes.refresh());
        if let Err(error) = reads.and(writes) {
            tracing::debug!(%error, "the cluster's map could not be refreshed");
        }
    }
}
