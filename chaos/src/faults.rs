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

use crate::{Kind, Planned, stage::Stage};

/// How long what was hurt stays away once its place was taken: long enough for buyers to notice.
const HOLD: Duration = Duration::from_secs(3);

/// Past the cluster's node timeout and the coordinators' lease: whoever stood still for so long was given up.
const STANDSTILL: Duration = Duration::from_secs(5);

/// What a fault did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Whom it hit, for people.
    pub target: String,
    /// The shards whose buyers it hit.
    pub shards: Vec<u16>,
    /// What it broke for good: promises that were looked at while it happened.
    pub violations: Vec<String>,
}

impl Harm {
    fn to(target: impl ToString, shards: Vec<u16>) -> Self {
        Self { target: target.to_string(), shards, violations: Vec::new() }
    }
}

/// Commits a fault and mends it; when this returns the cluster is whole again.
pub(crate) async fn commit(stage: &Stage, fault: Planned) -> Result<Harm> {
    let draw = fault.draw;
    let harm = match fault.kind {
        Kind::PrimaryKilled => redis_servers::primary_killed(stage, draw).await,
        Kind::PrimaryReplaced => redis_servers::primary_replaced(stage, draw).await,
        Kind::PrimaryRestarted => redis_servers::primary_restarted(stage, draw).await,
        Kind::PrimaryFrozen => redis_servers::primary_frozen(stage, draw).await,
        Kind::ReplicaFrozen => redis_servers::replica_frozen(stage, draw).await,
        Kind::ReplicaThenPrimary => redis_servers::replica_then_primary(stage, draw).await,
        Kind::PairKilled => redis_servers::pair_killed(stage, draw).await,
        Kind::SuccessorKilled => replication::successor_killed(stage, draw).await,
        Kind::LinkCut => replication::link_cut(stage, draw).await,
        Kind::LibraryFlushed => redis_servers::library_flushed(stage).await,
        Kind::MemoryFull => redis_servers::memory_full(stage, draw).await,
        Kind::KeyLost => keys::key_lost(stage, draw).await,
        Kind::ClockStepped => clocks::clock_stepped(stage, draw).await,
        Kind::FailoverAgreed => cluster::failover(stage, draw, testkit::Failover::Agreed).await,
        Kind::FailoverForced => cluster::failover(stage, draw, testkit::Failover::Forced).await,
        Kind::Takeover => cluster::failover(stage, draw, testkit::Failover::Takeover).await,
        Kind::SlotMoved => cluster::slot_moved(stage, draw).await,
        Kind::SlotMovedTargetKilled => cluster::slot_moved_target_killed(stage, draw).await,
        Kind::PrimaryAdded => cluster::primary_added(stage, draw).await,
        Kind::Partition => cluster::partition(stage).await,
        Kind::NodeKilled => processes::node_killed(stage, draw).await,
        Kind::NodesChanged => processes::nodes_changed(stage, draw).await,
        Kind::NodeDiesStealing => steal::node_dies_stealing(stage, draw).await,
        Kind::NodeAndPrimaryFrozen => processes::node_and_primary_frozen(stage, draw).await,
        Kind::CoordinatorKilled => processes::coordinator_killed(stage).await,
        Kind::CoordinatorFrozen => processes::coordinator_frozen(stage).await,
        Kind::CoordinatorsGone => coordinators::coordinators_gone(stage, draw).await,
        Kind::ThreeKilled => processes::three_killed(stage, draw).await,
        Kind::RedisKilled => processes::redis_killed(stage).await,
        Kind::AllKilled => processes::all_killed(stage).await,
    };
    let harm = harm.with_context(|| format!("{} could not be carried out", fault.kind))?;
    stage.wait_until_whole().await.with_context(|| format!("after {}", fault.kind))?;
    Ok(harm)
}

async fn hold() {
    sleep(HOLD).await;
}
