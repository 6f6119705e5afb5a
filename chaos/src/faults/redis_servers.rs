//! Single Redis servers: killed, frozen, emptied, full.

use anyhow::Result;
use redis::Cmd;
use testkit::Failover;
use tokio::time::sleep;

use super::{FaultEffect, STANDSTILL, hold};
use crate::testbed::{Testbed, Victim};

pub(super) async fn primary_killed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.addr);
    stage.redis().wait_until_promoted(victim.replica).await?;
    hold().await;
    stage.redis().restart(victim.addr).await?;
    Ok(victim.harm())
}

pub(super) async fn primary_replaced(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.addr);
    stage.redis().wait_until_promoted(victim.replica).await?;
    stage.redis().restart(victim.addr).await?;
    Ok(victim.harm())
}

pub(super) async fn primary_restarted(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().restart(victim.addr).await?;
    Ok(victim.harm())
}

pub(super) async fn primary_frozen(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().freeze(victim.addr);
    let promoted = stage.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    stage.redis().thaw(victim.addr);
    promoted.map(|()| victim.harm())
}

pub(super) async fn replica_frozen(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().freeze(victim.replica);
    sleep(STANDSTILL).await;
    stage.redis().thaw(victim.replica);
    Ok(FaultEffect::to(victim.replica, victim.shards))
}

/// The replica that takes over was away a moment before: it must have caught up with all that was confirmed.
pub(super) async fn replica_then_primary(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.replica);
    hold().await;
    stage.redis().restart(victim.replica).await?;
    stage.wait_until_whole().await?;
    stage.redis().kill(victim.addr);
    stage.redis().wait_until_promoted(victim.replica).await?;
    stage.redis().restart(victim.addr).await?;
    Ok(FaultEffect::to(format!("{}, then {}", victim.replica, victim.addr), victim.shards))
}

/// The replica misses what its primary sells meanwhile, which nobody is told of, and comes back before it.
pub(super) async fn pair_killed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.replica);
    hold().await;
    stage.redis().kill(victim.addr);
    stage.redis().restart(victim.replica).await?;
    hold().await;
    stage.redis().restart(victim.addr).await?;
    Ok(FaultEffect::to(format!("{} and {}", victim.replica, victim.addr), victim.shards))
}

pub(super) async fn library_flushed(stage: &Testbed) -> Result<FaultEffect> {
    for primary in stage.redis().primaries().await {
        tell(stage, primary, redis::cmd("FUNCTION").arg("FLUSH").arg("SYNC")).await?;
    }
    hold().await;
    Ok(FaultEffect::to("every primary", stage.every_shard()))
}

pub(super) async fn memory_full(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    tell(stage, victim.addr, config_set("maxmemory", "1mb")).await?;
    hold().await;
    tell(stage, victim.addr, config_set("maxmemory", "0")).await?;
    Ok(victim.harm())
}

impl Victim {
    pub(super) fn harm(&self) -> FaultEffect {
        FaultEffect::to(self.addr, self.shards.clone())
    }
}

pub(super) fn config_set(setting: &str, value: &str) -> Cmd {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(setting).arg(value);
    command
}

pub(super) async fn tell(
    stage: &Testbed,
    server: std::net::SocketAddr,
    command: impl std::borrow::Borrow<Cmd>,
) -> Result<()> {
    let mut connection = stage.redis().connection(server).await?;
    Ok(command.borrow().exec_async(&mut connection).await?)
}

/// Makes this server a primary, if it is none.
pub(super) async fn make_primary(stage: &Testbed, server: std::net::SocketAddr) -> Result<()> {
    if stage.redis().replicas().await.contains(&server) {
        stage.redis().fail_over_to(server, Failover::Agreed).await?;
        stage.wait_until_whole().await?;
    }
    Ok(())
}
