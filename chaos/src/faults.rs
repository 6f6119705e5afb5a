//! Implements the faults.
//!
//! Each fault restarts the processes that it stopped. [`inject`] then waits until the cluster is healthy, which is the
//! same for all faults.

mod clocks;
mod cluster;
mod coordinators;
mod feed;
mod keys;
mod ledgers;
mod nodes;
mod postgres;
mod processes;
mod redis_servers;
mod replication;
mod steal;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::{FaultKind, PlannedFault, testbed::Testbed};

/// Time for which a fault's state is held, so that buyers notice it.
const HOLD: Duration = Duration::from_secs(3);

/// Longer than `cluster-node-timeout` and the coordinators' lease: a process frozen for this long is replaced.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Longer than ledgers wait for PostgreSQL and for a delivery.
const ORDERS_STANDSTILL: Duration = Duration::from_secs(3);

/// Effect of an injected fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultEffect {
    /// Description of the target, for the report.
    pub target: String,
    /// Shards whose buyers are affected.
    pub shards: Vec<u16>,
    /// Promises that were found broken while the fault lasted.
    pub violations: Vec<String>,
}

impl FaultEffect {
    fn on(target: impl ToString, shards: Vec<u16>) -> Self {
        Self { target: target.to_string(), shards, violations: Vec::new() }
    }
}

/// Injects a fault and repairs the cluster. Returns once the system is healthy again.
pub(crate) async fn inject(testbed: &Testbed, fault: PlannedFault) -> Result<FaultEffect> {
    let draw = fault.draw;
    let _orders = match fault.kind.touches_orders() {
        true => Some(testbed.orders.take().await),
        false => None,
    };
    let effect = match fault.kind {
        FaultKind::PrimaryKilled => redis_servers::primary_killed(testbed, draw).await,
        FaultKind::PrimaryReplaced => redis_servers::primary_replaced(testbed, draw).await,
        FaultKind::PrimaryRestarted => redis_servers::primary_restarted(testbed, draw).await,
        FaultKind::PrimaryFrozen => redis_servers::primary_frozen(testbed, draw).await,
        FaultKind::ReplicaFrozen => redis_servers::replica_frozen(testbed, draw).await,
        FaultKind::ReplicaThenPrimary => redis_servers::replica_then_primary(testbed, draw).await,
        FaultKind::PairKilled => redis_servers::pair_killed(testbed, draw).await,
        FaultKind::SuccessorKilled => replication::successor_killed(testbed, draw).await,
        FaultKind::LinkCut => replication::link_cut(testbed, draw).await,
        FaultKind::LibraryFlushed => redis_servers::library_flushed(testbed).await,
        FaultKind::MemoryFull => redis_servers::memory_full(testbed, draw).await,
        FaultKind::KeyLost => keys::key_lost(testbed, draw).await,
        FaultKind::ClockStepped => clocks::clock_stepped(testbed, draw).await,
        FaultKind::FailoverAgreed => cluster::failover(testbed, draw, testkit::Failover::Agreed).await,
        FaultKind::FailoverForced => cluster::failover(testbed, draw, testkit::Failover::Forced).await,
        FaultKind::Takeover => cluster::failover(testbed, draw, testkit::Failover::Takeover).await,
        FaultKind::SlotMoved => cluster::slot_moved(testbed, draw).await,
        FaultKind::SlotMovedTargetKilled => cluster::slot_moved_target_killed(testbed, draw).await,
        FaultKind::PrimaryAdded => cluster::primary_added(testbed, draw).await,
        FaultKind::Partition => cluster::partition(testbed).await,
        FaultKind::NodeKilled => processes::node_killed(testbed, draw).await,
        FaultKind::NodesChanged => processes::nodes_changed(testbed, draw).await,
        FaultKind::NodeDiesStealing => steal::node_dies_stealing(testbed, draw).await,
        FaultKind::NodeAndPrimaryFrozen => processes::node_and_primary_frozen(testbed, draw).await,
        FaultKind::CoordinatorKilled => processes::coordinator_killed(testbed).await,
        FaultKind::CoordinatorFrozen => processes::coordinator_frozen(testbed).await,
        FaultKind::CoordinatorsGone => coordinators::coordinators_gone(testbed, draw).await,
        FaultKind::ThreeKilled => processes::three_killed(testbed, draw).await,
        FaultKind::RedisKilled => processes::redis_killed(testbed).await,
        FaultKind::AllKilled => processes::all_killed(testbed).await,
        FaultKind::FailoverWhileDraining => redis_servers::failover_while_draining(testbed, draw).await,
        FaultKind::LedgerKilled => ledgers::ledger_killed(testbed, draw).await,
        FaultKind::LedgerFrozen => ledgers::ledger_frozen(testbed, draw).await,
        FaultKind::StatementLate => ledgers::statement_late(testbed, draw).await,
        FaultKind::PostgresKilled => postgres::postgres_killed(testbed).await,
        FaultKind::PostgresRestarted => postgres::postgres_restarted(testbed).await,
        FaultKind::PostgresFrozen => postgres::postgres_frozen(testbed).await,
        FaultKind::PostgresDiskFull => postgres::postgres_disk_full(testbed).await,
        FaultKind::LedgerKilledPublishing => feed::ledger_killed_publishing(testbed).await,
        FaultKind::BrokerKilled => feed::broker_killed(testbed).await,
        FaultKind::BrokerBlocked => feed::broker_blocked(testbed).await,
        FaultKind::WebhookFails => feed::webhook_fails(testbed, draw).await,
    };
    let effect = effect.with_context(|| format!("{} could not be injected", fault.kind))?;
    let whole = async {
        if !fault.kind.attacks_orders() {
            testbed.wait_until_whole().await?;
        }
        if fault.kind.touches_orders() {
            testbed.orders.wait_until_ready().await?;
        }
        anyhow::Ok(())
    };
    whole.await.with_context(|| format!("after {}", fault.kind))?;
    Ok(effect)
}

async fn hold() {
    sleep(HOLD).await;
}
