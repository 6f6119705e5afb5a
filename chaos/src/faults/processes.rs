//! Faults of nodes, coordinators, and many processes at once.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use testkit::stack::Node;
use tokio::time::sleep;

use super::{FaultEffect, STANDSTILL, hold};
use crate::testbed::{Testbed, pick};

/// Retries of a start before it counts as failed, as with a supervisor that then alerts an operator.
const STARTS_MAX: usize = 20;

/// Pause between two starts of a process, as with a supervisor.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Head start of the node over the primary: within it, the node reads the cluster map and sends requests.
const NODE_HEAD_START: Duration = Duration::from_millis(500);

pub(super) async fn node_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let node = pick_node(testbed, draw)?;
    node.process().kill();
    hold().await;
    node.restart().await?;
    Ok(FaultEffect::on(node.process().name(), Vec::new()))
}

pub(super) async fn nodes_changed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let drained = pick_node(testbed, draw)?;
    let added = testbed.stack.start_node().await?;
    drained.process().term();
    let ended = drained.process().wait(STANDSTILL * 4).await?;
    drained.restart().await?;
    hold().await;
    testbed.stack.retire_node().await?;
    let target = format!("{} drained beside {}", drained.process().name(), added.process().name());
    let mut effect = FaultEffect::on(target, Vec::new());
    if !ended.success() {
        effect.violations.push(format!("{} exited with {ended} after SIGTERM", drained.process().name()));
    }
    Ok(effect)
}

/// Both continue with old state: the node with an old cluster map, the primary with the belief that it is still
/// primary.
pub(super) async fn node_and_primary_frozen(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let (victim, node) = (testbed.victim(draw).await?, pick_node(testbed, draw >> 8)?);
    let is_node_first = pick(&[false, true], draw >> 16).context("no order")?;
    testbed.redis().freeze(victim.addr);
    node.process().freeze();
    let promoted = testbed.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    node.process().thaw();
    if is_node_first {
        sleep(NODE_HEAD_START).await;
    }
    testbed.redis().thaw(victim.addr);
    promoted?;
    let order = if is_node_first { ", the node continues first" } else { "" };
    Ok(FaultEffect::on(format!("{} and {}{order}", victim.addr, node.process().name()), victim.shards))
}

pub(super) async fn coordinator_killed(testbed: &Testbed) -> Result<FaultEffect> {
    let coordinator = testbed.leader().await?;
    coordinator.process().kill();
    hold().await;
    coordinator.restart().await?;
    Ok(FaultEffect::on(coordinator.process().name(), Vec::new()))
}

pub(super) async fn coordinator_frozen(testbed: &Testbed) -> Result<FaultEffect> {
    let coordinator = testbed.leader().await?;
    coordinator.process().freeze();
    sleep(STANDSTILL).await;
    coordinator.process().thaw();
    Ok(FaultEffect::on(coordinator.process().name(), Vec::new()))
}

pub(super) async fn three_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let (victim, node) = (testbed.victim(draw).await?, pick_node(testbed, draw)?);
    let coordinator = testbed.leader().await?;
    testbed.redis().kill(victim.addr);
    node.process().kill();
    coordinator.process().kill();
    testbed.redis().wait_until_promoted(victim.replica).await?;
    tokio::try_join!(testbed.redis().restart(victim.addr), node.restart(), coordinator.restart())?;
    let (node, coordinator) = (node.process(), coordinator.process());
    Ok(FaultEffect::on(format!("{}, {} and {}", victim.addr, node.name(), coordinator.name()), victim.shards))
}

pub(super) async fn redis_killed(testbed: &Testbed) -> Result<FaultEffect> {
    testbed.redis().processes().iter().for_each(|process| process.kill());
    restart_redis(testbed).await?;
    Ok(FaultEffect::on("every Redis process", testbed.all_shards()))
}

/// Starts all processes at the same time, in no order. A process that exits because another one does not run yet is
/// started again, as by a supervisor.
pub(super) async fn all_killed(testbed: &Testbed) -> Result<FaultEffect> {
    testbed.stack.processes().iter().for_each(|process| process.kill());
    testbed.orders.postgres().kill();
    let (nodes, coordinators) = (testbed.stack.nodes(), testbed.stack.coordinators());
    let ledgers = testbed.stack.ledgers();
    let (_, node_starts, coordinator_starts, ledger_starts, (), ()) = tokio::try_join!(
        restart_redis(testbed),
        try_join_all(nodes.iter().map(|node| start_with_retries(async || node.restart().await))),
        try_join_all(coordinators.iter().map(|one| start_with_retries(async || one.restart().await))),
        try_join_all(ledgers.iter().map(|ledger| start_with_retries(async || ledger.restart().await))),
        testbed.stack.nginx().restart(),
        testbed.orders.postgres().restart(),
    )?;
    let failed_starts = [node_starts, coordinator_starts, ledger_starts].concat().iter().sum::<usize>();
    let failed_starts =
        if failed_starts > 0 { format!(" ({failed_starts} failed starts)") } else { String::new() };
    Ok(FaultEffect::on(format!("every process{failed_starts}"), testbed.all_shards()))
}

/// Repeats a start until it succeeds. Returns the number of failed starts.
async fn start_with_retries(start: impl AsyncFn() -> Result<()>) -> Result<usize> {
    for failed_starts in 0..STARTS_MAX {
        if start().await.is_ok() {
            return Ok(failed_starts);
        }
        sleep(RESTART_PAUSE).await;
    }
    start().await.map(|()| STARTS_MAX)
}

async fn restart_redis(testbed: &Testbed) -> Result<()> {
    let servers = testbed.redis().servers().await;
    try_join_all(servers.iter().map(async |server| testbed.redis().restart(server.addr).await)).await?;
    Ok(())
}

fn pick_node(testbed: &Testbed, draw: u32) -> Result<Arc<Node>> {
    pick(&testbed.stack.nodes(), draw).context("no nodes")
}
