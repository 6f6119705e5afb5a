//! The parts that all controllers use: connections, records, the lease, and the suspicion that the cluster's map is old.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::connection::ConnectOptions;

use crate::failure_log::FailureLog;
use crate::lease_holder::Leadership;
use crate::records::Records;
use crate::timing::Timing;

/// Longest wait for a reply when reading shards. A primary that does not answer by then is asked again in the next
/// round, and must not delay the results of the others.
const READ_TIMEOUT: Duration = Duration::from_millis(250);

/// The parts that all controllers use.
pub(crate) struct Context {
    /// For reads: with short timeouts, and never blocked by a barrier.
    pub(crate) reads: Cluster,
    pub(crate) writes: Cluster,
    pub(crate) timing: Timing,
    pub(crate) records: Records,
    pub(crate) leadership: Leadership,
    pub(crate) map_is_suspect: AtomicBool,
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
}
