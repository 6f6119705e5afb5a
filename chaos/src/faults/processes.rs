//! Nodes, coordinators, and many processes at once.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use testkit::stack::Node;
use tokio::time::sleep;

use super::{FaultEffect, STANDSTILL, hold};
use crate::testbed::{Testbed, pick};

/// How often a supervisor tries before a person is called.
const STARTS_MAX: usize = 20;

/// A supervisor's pause before it starts again what ended.
const STARTED_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A node that wakes before a primary reads the cluster's map and sends to it within this time.
const NODE_AHEAD: Duration = Duration::from_millis(500);

pub(super) async fn node_killed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let node = a_node(stage, draw)?;
    node.process().kill();
    hold().await;
    node.restart().await?;
    Ok(FaultEffect::to(node.process().name(), Vec::new()))
}

pub(super) async fn nodes_changed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let drained = a_node(stage, draw)?;
    let added = stage.stack.start_node().await?;
    drained.process().term();
    let ended = drained.process().wait(STANDSTILL * 4).await?;
    drained.restart().await?;
    hold().await;
    stage.stack.retire_node().await?;
    let target = format!("{} drained beside {}", drained.process().name(), added.process().name());
    let mut harm = FaultEffect::to(target, Vec::new());
    if !ended.success() {
        harm.violations
            .push(format!("{} was asked to drain and ended with {ended}", drained.process().name()));
    }
    Ok(harm)
}

/// Both wake with what they knew before: the node with an old map, the primary with the belief that it still leads.
pub(super) async fn node_and_primary_frozen(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let (victim, node) = (stage.victim(draw).await?, a_node(stage, draw >> 8)?);
    let is_node_first = pick(&[false, true], draw >> 16).context("two orders")?;
    stage.redis().freeze(victim.addr);
    node.process().freeze();
    let promoted = stage.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    node.process().thaw();
    if is_node_first {
        sleep(NODE_AHEAD).await;
    }
    stage.redis().thaw(victim.addr);
    promoted?;
    let order = if is_node_first { ", the node is first to wake" } else { "" };
    Ok(FaultEffect::to(format!("{} and {}{order}", victim.addr, node.process().name()), victim.shards))
}

pub(super) async fn coordinator_killed(stage: &Testbed) -> Result<FaultEffect> {
    let coordinator = stage.leader().await?;
    coordinator.process().kill();
    hold().await;
    coordinator.restart().await?;
    Ok(FaultEffect::to(coordinator.process().name(), Vec::new()))
}

pub(super) async fn coordinator_frozen(stage: &Testbed) -> Result<FaultEffect> {
    let coordinator = stage.leader().await?;
    coordinator.process().freeze();
    sleep(STANDSTILL).await;
    coordinator.process().thaw();
    Ok(FaultEffect::to(coordinator.process().name(), Vec::new()))
}

pub(super) async fn three_killed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let (victim, node) = (stage.victim(draw).await?, a_node(stage, draw)?);
    let coordinator = stage.leader().await?;
    stage.redis().kill(victim.addr);
    node.process().kill();
    coordinator.process().kill();
    stage.redis().wait_until_promoted(victim.replica).await?;
    tokio::try_join!(stage.redis().restart(victim.addr), node.restart(), coordinator.restart())?;
    let (node, coordinator) = (node.process(), coordinator.process());
    Ok(FaultEffect::to(format!("{}, {} and {}", victim.addr, node.name(), coordinator.name()), victim.shards))
}

pub(super) async fn redis_killed(stage: &Testbed) -> Result<FaultEffect> {
    stage.redis().processes().iter().for_each(|process| process.kill());
    restart_redis(stage).await?;
    Ok(FaultEffect::to("every Redis process", stage.every_shard()))
}

/// Everything starts at the same time, in no order: what gives up because another one is not there yet is started
/// again, as a supervisor would.
pub(super) async fn all_killed(stage: &Testbed) -> Result<FaultEffect> {
    stage.stack.processes().iter().for_each(|process| process.kill());
    let (nodes, coordinators) = (stage.stack.nodes(), stage.stack.coordinators());
    let (_, node_starts, coordinator_starts, ()) = tokio::try_join!(
        restart_redis(stage),
        try_join_all(nodes.iter().map(|node| until_it_runs(async || node.restart().await))),
        try_join_all(coordinators.iter().map(|one| until_it_runs(async || one.restart().await))),
        stage.stack.nginx().restart(),
    )?;
    let given_up = [node_starts, coordinator_starts].concat().iter().sum::<usize>();
    let given_up = if given_up > 0 { format!(" ({given_up} starts were given up)") } else { String::new() };
    Ok(FaultEffect::to(format!("every process{given_up}"), stage.every_shard()))
}

/// Starts something until it runs; says how many starts were in vain.
async fn until_it_runs(start: impl AsyncFn() -> Result<()>) -> Result<usize> {
    for given_up in 0..STARTS_MAX {
        if start().await.is_ok() {
            return Ok(given_up);
        }
        sleep(STARTED_AGAIN_AFTER).await;
    }
    start().await.map(|()| STARTS_MAX)
}

async fn restart_redis(stage: &Testbed) -> Result<()> {
    let servers = stage.redis().servers().await;
    try_join_all(servers.iter().map(async |server| stage.redis().restart(server.addr).await)).await?;
    Ok(())
}

fn a_node(stage: &Testbed, draw: u32) -> Result<Arc<Node>> {
    pick(&stage.stack.nodes(), draw).context("a stack has nodes")
}
