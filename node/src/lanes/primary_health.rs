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
    suspicion: Arc<Notify>,
    in_doubt: AtomicBool,
    /// How long a pipeline takes, in microseconds: each new one counts for an eighth.
    cycle_us: AtomicU64,
    deposed: Notify,
}

impl PrimaryHealth {
    pub(super) fn new(address: Address, suspicion: Arc<Notify>) -> Self {
        Self {
            address,
            suspicion,
            in_doubt: AtomicBool::new(false),
            cycle_us: AtomicU64::new(0),
            deposed: Notify::new(),
        }
    }

    /// How long a pipeline takes.
    pub(super) fn cycle(&self) -> Duration {
        Duration::from_micros(self.cycle_us.load(Ordering::Relaxed))
    }

    /// A pipeline took so long. Only its lane says so: nobody else writes in between.
    pub(super) fn took(&self, cycle: Duration) {
        let before = self.cycle_us.load(Ordering::Relaxed);
        let after = (7 * before + u64::try_from(cycle.as_micros()).unwrap_or(u64::MAX / 8)) / 8;
        self.cycle_us.store(after, Ordering::Relaxed);
    }

    /// Whether its primary does not answer, or its replicas do not.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// Told once when it begins: those who wait come again many times a second.
    pub(super) fn doubt(&self, error: &CallError) {
        if !self.in_doubt.swap(true, Ordering::Relaxed) {
            tracing::warn!(redis.address = %self.address, error = %error, "a primary is in doubt");
        }
        self.suspect();
    }

    pub(super) fn trust(&self) {
        if self.is_in_doubt() {
            self.in_doubt.store(false, Ordering::Relaxed);
            tracing::info!(redis.address = %self.address, "the primary answers again");
        }
    }

    /// The map may be out of date.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// The primary serves no slots any more.
    pub(super) fn depose(&self) {
        self.deposed.notify_one();
    }

    /// Completes when the primary is deposed.
    pub(super) async fn deposed(&self) {
        self.deposed.notified().await;
    }
}
