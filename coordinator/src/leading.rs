//! Leader election: one coordinator takes the lease, renews it, and releases it on shutdown.
//!
//! The lease only saves work. Everything that a leader does may be done twice, so two coordinators that both believe to
//! lead do no harm; a failover or a frozen process can cause that. While the lease cannot be requested, no coordinator
//! leads. Sales then keep selling and stealing, and nodes take their own snapshots.

use std::future::Future;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::Shared;
use service::presence;
use stock::lease::{Lead, Lease};
use stock::presence::{Presence, ProcessInfo, ProcessKind};
use tokio::time::{Instant, sleep_until};

use crate::coordinator::Coordinator;
use crate::failure_log::FailureLog;
use crate::lease_holder::{CoordinatorRole, LeaseHolder};

/// How often the lease is checked during its lifetime. A released lease is found within a twentieth of it, and a leader
/// has many tries to renew it.
const CHECKS_PER_LEASE: u32 = 20;

/// The role of a coordinator among the others.
pub struct Leadership {
    name: String,
    duration: Duration,
    lease_holder: ArcSwap<LeaseHolder>,
}

impl Leadership {
    /// A coordinator that does not lead yet.
    pub(crate) fn new(name: String, duration: Duration) -> Self {
        Self { name, duration, lease_holder: ArcSwap::default() }
    }

    /// The name of this coordinator.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if this coordinator leads now.
    pub fn leads(&self) -> bool {
        self.lease_holder.load().leads(Instant::now())
    }

    /// The current role of this coordinator.
    pub fn role(&self) -> CoordinatorRole {
        self.lease_holder.load().role(Instant::now())
    }

    /// The name of the leader, as far as this coordinator knows.
    pub fn leader(&self) -> Option<String> {
        match self.role() {
            CoordinatorRole::Leading => Some(self.name.clone()),
            CoordinatorRole::Following(leader) => leader,
        }
    }
}

impl Coordinator {
    /// Tries to become the leader until `stop` completes, and then hands over at once.
    pub(crate) async fn seek_lease<S: Future<Output = ()>>(&self, stop: Shared<S>) {
        let (mut failures, mut logged) = (FailureLog::default(), None);
        loop {
            self.refresh_lease(&mut failures).await;
            log_role(self.leadership.role(), &mut logged);
            let next_check = self.leadership.next_check();
            tokio::select! {
                biased;
                () = stop.clone() => break,
                () = sleep_until(next_check) => {}
            }
        }
        self.hand_over().await;
    }

    /// Announces this process until `stop` completes.
    pub(crate) async fn announce_presence<S: Future<Output = ()>>(&self, stop: Shared<S>) {
        let (name, version) = (self.leadership.name.clone(), env!("CARGO_PKG_VERSION").to_owned());
        let process = ProcessInfo { name, kind: ProcessKind::Coordinator, version };
        presence::announce(&self.reads, |uptime| Presence::report(&process, uptime), stop).await;
    }

    /// Requests or renews the lease. Without a response the last known leader is kept until its lease expires.
    async fn refresh_lease(&self, failures: &mut FailureLog) {
        let requested_at = Instant::now();
        let response = self.request_lease(self.leadership.duration).await;
        self.log_failure(failures, "lease on leading".into(), response.as_ref().err());
        if let Ok(lease) = response {
            let lease_holder = LeaseHolder::of(&self.leadership.name, lease, requested_at, Instant::now());
            self.leadership.lease_holder.store(lease_holder.into());
        }
    }

    /// Releases the lease, so that the others do not wait for it to expire, nor for a round of this coordinator to
    /// finish.
    async fn hand_over(&self) {
        if !self.leadership.leads() {
            return;
        }
        self.leadership.lease_holder.store(LeaseHolder::default().into());
        match self.request_lease(Duration::ZERO).await {
            Ok(_) => tracing::info!("handing over"),
            Err(error) => tracing::info!(%error, "handing over when the lease runs out"),
        }
    }

    async fn request_lease(&self, hold: Duration) -> Result<Lease, rediscluster::CallError> {
        self.reads.poll(Lead { coordinator: &self.leadership.name, hold }).await
    }
}

impl Leadership {
    fn next_check(&self) -> Instant {
        self.lease_holder.load().next_check(Instant::now(), self.duration / CHECKS_PER_LEASE)
    }
}

/// Logs the role if it has changed.
fn log_role(role: CoordinatorRole, logged: &mut Option<CoordinatorRole>) {
    if logged.as_ref() == Some(&role) {
        return;
    }
    match &role {
        CoordinatorRole::Leading => tracing::info!("leading"),
        CoordinatorRole::Following(Some(leader)) => tracing::info!(coordinator.leader = %leader, "following"),
        CoordinatorRole::Following(None) => tracing::info!("following: no coordinator is known to lead"),
    }
    *logged = Some(role);
}
