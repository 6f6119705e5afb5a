//! The faults themselves. Each ends with what it hurt running again; waiting until the cluster is whole comes after
//! all of them alike.

mod clocks;
mod cluster;
mod coordinators;
mod keys;
mod nodes;
mod processes;
mod redis_servers;
mod replication;
mod steal;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::{FaultKind, PlannedFault, testbed::Testbed};

/// How long what was hurt stays away once its place was taken: long enough for buyers to notice.
const HOLD: Duration = Duration::from_secs(3);

/// Past the cluster's node timeout and the coordinators' lease: whoever stood still for so long was given up.
const STANDSTILL: Duration = Duration::from_secs(5);

/// What a fault did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultEffect {
    /// Whom it hit, for people.
    pub target: String,
    /// The shards whose buyers it hit.
    pub shards: Vec<u16>,
    /// What it broke for good: promises that were looked at while it happened.
    pub violations: Vec<String>,
}

impl FaultEffect {
    fn to(target: impl ToString, shards: Vec<u16>) -> Self {
        Self { target: target.to_string(), shards, violations: Vec::new() }
    }
}

/// Commits a fault and mends it; when this returns the cluster is whole again.
pub(crate) async fn commit(stage: &Testbed, fault: PlannedFault) -> Result<FaultEffect> {
    let draw = fault.draw;
    let harm = match fault.kind {
        FaultKind::PrimaryKilled => redis_servers::primary_killed(stage, draw).await,
        FaultKind::PrimaryReplaced => redis_servers::primary_replaced(stage, draw).await,
        FaultKind::PrimaryRestarted => redis_servers::primary_restarted(stage, draw).await,
        FaultKind::PrimaryFrozen => redis_servers::primary_frozen(stage, draw).await,
        FaultKind::ReplicaFrozen => redis_servers::replica_frozen(stage, draw).await,
        FaultKind::ReplicaThenPrimary => redis_servers::replica_then_primary(stage, draw).await,
        FaultKind::PairKilled => redis_servers::pair_killed(stage, draw).await,
        FaultKind::SuccessorKilled => replication::successor_killed(stage, draw).await,
        FaultKind::LinkCut => replication::link_cut(stage, draw).await,
        FaultKind::LibraryFlushed => redis_servers::library_flushed(stage).await,
        FaultKind::MemoryFull => redis_servers::memory_full(stage, draw).await,
        FaultKind::KeyLost => keys::key_lost(stage, draw).await,
        FaultKind::ClockStepped => clocks::clock_stepped(stage, draw).await,
        FaultKind::FailoverAgreed => cluster::failover(stage, draw, testkit::Failover::Agreed).await,
        FaultKind::FailoverForced => cluster::failover(stage, draw, testkit::Failover::Forced).await,
        FaultKind::Takeover => cluster::failover(stage, draw, testkit::Failover::Takeover).await,
        FaultKind::SlotMoved => cluster::slot_moved(stage, draw).await,
        FaultKind::SlotMovedTargetKilled => cluster::slot_moved_target_killed(stage, draw).await,
        FaultKind::PrimaryAdded => cluster::primary_added(stage, draw).await,
        FaultKind::Partition => cluster::partition(stage).await,
        FaultKind::NodeKilled => processes::node_killed(stage, draw).await,
        FaultKind::NodesChanged => processes::nodes_changed(stage, draw).await,
        FaultKind::NodeDiesStealing => steal::node_dies_stealing(stage, draw).await,
        FaultKind::NodeAndPrimaryFrozen => processes::node_and_primary_frozen(stage, draw).await,
        FaultKind::CoordinatorKilled => processes::coordinator_killed(stage).await,
        FaultKind::CoordinatorFrozen => processes::coordinator_frozen(stage).await,
        FaultKind::CoordinatorsGone => coordinators::coordinators_gone(stage, draw).await,
        FaultKind::ThreeKilled => processes::three_killed(stage, draw).await,
        FaultKind::RedisKilled => processes::redis_killed(stage).await,
        FaultKind::AllKilled => processes::all_killed(stage).await,
    };
    let harm = harm.with_context(|| format!("{} could not be carried out", fault.kind))?;
    stage.wait_until_whole().await.with_context(|| format!("after {}", fault.kind))?;
    Ok(harm)
}

async fn hold() {
    sleep(HOLD).await;
}
