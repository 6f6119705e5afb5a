//! What a lane and those around it tell each other: whether its primary answers, and when its reign ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stock::calls::CallError;
use stock::topology::Address;
use tokio::sync::Notify;

pub(super) struct Condition {
    address: Address,
    /// Wakes whoever watches the cluster's map: a lane saw something that the map does not explain.
    suspicion: Arc<Notify>,
    in_doubt: AtomicBool,
    deposed: Notify,
}

impl Condition {
    pub(super) fn new(address: Address, suspicion: Arc<Notify>) -> Self {
        Self { address, suspicion, in_doubt: AtomicBool::new(false), deposed: Notify::new() }
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
