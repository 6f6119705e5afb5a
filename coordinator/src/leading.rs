//! Leader election: one coordinator takes the lease, renews it, and releases it on shutdown.
//!
//! The lease only saves work. Everything that a leader does may be done twice, so two coordinators that both believe to
//! lead do no harm; a failover or a frozen process can cause that. While the lease cannot be requested, no coordinator
//! leads. Sales then keep selling and stealing, and nodes take their own snapshots.

use std::time::Duration;

use rediscluster::CallError;
use stock::lease::{Lead, Lease};
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::failure_log::FailureLog;
use crate::lease_holder::{Leadership, LeaseHolder};
use crate::rounds::Stop;

/// How often the lease is checked during its lifetime. A released lease is found within a twentieth of it, and a leader
/// has many tries to renew it.
const CHECKS_PER_LEASE: u32 = 20;

/// Tries to become the leader until `stop` completes, and then hands over at once.
pub(crate) async fn run(context: &Context, stop: Stop) {
    let (mut failures, mut logged) = (FailureLog::default(), None);
    loop {
        refresh_lease(context, &mut failures).await;
        log_leader(&context.leadership, &mut logged);
        let period = context.timing.lease_duration / CHECKS_PER_LEASE;
        let next_check = context.leadership.holder().next_check(Instant::now(), period);
        tokio::select! {
            biased;
            () = stop.clone() => break,
            () = sleep_until(next_check) => {}
        }
    }
    hand_over(context).await;
}

/// Requests or renews the lease. Without a response the last known leader is kept until its lease expires.
async fn refresh_lease(context: &Context, failures: &mut FailureLog) {
    let requested_at = Instant::now();
    let response = request_lease(context, context.timing.lease_duration).await;
    context.log_failure(failures, "lease on leading".into(), response.as_ref().err());
    if let Ok(lease) = response {
        let leadership = &context.leadership;
        leadership.update(LeaseHolder::of(leadership.name(), lease, requested_at, Instant::now()));
    }
}

/// Releases the lease, so that the others do not wait for it to expire, nor for a round of this coordinator to finish.
async fn hand_over(context: &Context) {
    if !context.leadership.leads() {
        return;
    }
    context.leadership.update(LeaseHolder::default());
    match request_lease(context, Duration::ZERO).await {
        Ok(_) => tracing::info!("handing over"),
        Err(error) => tracing::info!(%error, "handing over when the lease runs out"),
    }
}

async fn request_lease(context: &Context, hold: Duration) -> Result<Lease, CallError> {
    context.reads.poll(Lead { coordinator: context.leadership.name(), hold }).await
}

/// Logs the leader if it has changed.
fn log_leader(leadership: &Leadership, logged: &mut Option<Option<String>>) {
    let leader = leadership.leader();
    if logged.as_ref() == Some(&leader) {
        return;
    }
    match &leader {
        Some(leader) if leader == leadership.name() => tracing::info!("leading"),
        Some(leader) => tracing::info!(coordinator.leader = %leader, "following"),
        None => tracing::info!("following: no coordinator is known to lead"),
    }
    *logged = Some(leader);
}
