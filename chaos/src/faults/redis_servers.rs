//! Single Redis servers: killed, frozen, emptied, full.

use anyhow::Result;
use redis::Cmd;
use testkit::Failover;
use tokio::time::sleep;

use super::{Harm, STANDSTILL, hold};
use crate::stage::{Stage, Victim};

pub(super) async fn primary_killed(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.addr);
    stage.redis().wait_until_promoted(victim.replica).await?;
    hold().await;
    stage.redis().restart(victim.addr).await?;
    Ok(victim.harm())
}

pub(super) async fn primary_replaced(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.addr);
    stage.redis().wait_until_promoted(victim.replica).await?;
    stage.redis().restart(victim.addr).await?;
    Ok(victim.harm())
}

pub(super) async fn primary_restarted(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().restart(victim.addr).await?;
    Ok(victim.harm())
}

pub(super) async fn primary_frozen(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().freeze(victim.addr);
    let promoted = stage.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    stage.redis().thaw(victim.addr);
    promoted.map(|()| victim.harm())
}

pub(super) async fn replica_frozen(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().freeze(victim.replica);
    sleep(STANDSTILL).await;
    stage.redis().thaw(victim.replica);
    Ok(Harm::to(victim.replica, victim.shards))
}

/// The replica that takes over was away a moment before: it must have caught up with all that was confirmed.
pub(super) async fn replica_then_primary(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.replica);
    hold().await;
    stage.redis().restart(victim.replica).await?;
    stage.wait_until_whole().await?;
    stage.redis().kill(victim.addr);
    stage.redis().wait_until_promoted(victim.replica).await?;
    stage.redis().restart(victim.addr).await?;
    Ok(Harm::to(format!("{}, then {}", victim.replica, victim.addr), victim.shards))
}

/// The replica misses what its primary sells meanwhile, which nobody is told of, and comes back before it.
pub(super) async fn pair_killed(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().kill(victim.replica);
    hold().await;
    stage.redis().kill(victim.addr);
    stage.redis().restart(victim.replica).await?;
    hold().await;
    stage.redis().restart(victim.addr).await?;
    Ok(Harm::to(format!("{} and {}", victim.replica, victim.addr), victim.shards))
}

pub(super) async fn library_flushed(stage: &Stage) -> Result<Harm> {
    for primary in stage.redis().primaries().await {
        tell(stage, primary, redis::cmd("FUNCTION").arg("FLUSH").arg("SYNC")).await?;
    }
    hold().await;
    Ok(Harm::to("every primary", stage.every_shard()))
}

pub(super) async fn memory_full(stage: &Stage, draw: u32) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    tell(stage, victim.addr, config_set("maxmemory", "1mb")).await?;
    hold().await;
    tell(stage, victim.addr, config_set("maxmemory", "0")).await?;
    Ok(victim.harm())
}

impl Victim {
    pub(super) fn harm(&self) -> Harm {
        Harm::to(self.addr, self.shards.clone())
    }
}

pub(super) fn config_set(setting: &str, value: &str) -> Cmd {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(setting).arg(value);
    command
}

pub(super) async fn tell(
    stage: &Stage,
    server: std::net::SocketAddr,
    command: impl std::borrow::Borrow<Cmd>,
) -> Result<()> {
    let mut connection = stage.redis().connection(server).await?;
    Ok(command.borrow().exec_async(&mut connection).await?)
}

/// Makes this server a primary, if it is none.
pub(super) async fn make_primary(stage: &Stage, server: std::net::SocketAddr) -> Result<()> {
    if stage.redis().replicas().await.contains(&server) {
        stage.redis().fail_over_to(server, Failover::Agreed).await?;
        stage.wait_until_whole().await?;
    }
    Ok(())
}
