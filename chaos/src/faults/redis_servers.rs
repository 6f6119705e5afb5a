//! Faults of single Redis servers: killed, frozen, without its functions, out of memory.

use std::time::Duration;

use anyhow::Result;
use redis::Cmd;
use testkit::Failover;
use tokio::time::sleep;

use super::{FaultEffect, STANDSTILL, hold};
use crate::testbed::{Testbed, Victim};

/// Time in which each ledger sends a statement to a frozen PostgreSQL.
const ON_THE_WAY: Duration = Duration::from_secs(1);

pub(super) async fn primary_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().kill(victim.addr);
    testbed.redis().wait_until_promoted(victim.replica).await?;
    hold().await;
    testbed.redis().restart(victim.addr).await?;
    Ok(victim.effect())
}

pub(super) async fn primary_replaced(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().kill(victim.addr);
    testbed.redis().wait_until_promoted(victim.replica).await?;
    testbed.redis().restart(victim.addr).await?;
    Ok(victim.effect())
}

pub(super) async fn primary_restarted(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().restart(victim.addr).await?;
    Ok(victim.effect())
}

pub(super) async fn primary_frozen(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().freeze(victim.addr);
    let promoted = testbed.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    testbed.redis().thaw(victim.addr);
    promoted.map(|()| victim.effect())
}

pub(super) async fn replica_frozen(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().freeze(victim.replica);
    sleep(STANDSTILL).await;
    testbed.redis().thaw(victim.replica);
    Ok(FaultEffect::on(victim.replica, victim.shards))
}

/// The promoted replica was down shortly before: it must have caught up with all confirmed writes.
pub(super) async fn replica_then_primary(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().kill(victim.replica);
    hold().await;
    testbed.redis().restart(victim.replica).await?;
    testbed.wait_until_whole().await?;
    testbed.redis().kill(victim.addr);
    testbed.redis().wait_until_promoted(victim.replica).await?;
    testbed.redis().restart(victim.addr).await?;
    Ok(FaultEffect::on(format!("{}, then {}", victim.replica, victim.addr), victim.shards))
}

/// The replica lacks the unconfirmed sales that its primary made while it was down, and is restarted first.
pub(super) async fn pair_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().kill(victim.replica);
    hold().await;
    testbed.redis().kill(victim.addr);
    testbed.redis().restart(victim.replica).await?;
    hold().await;
    testbed.redis().restart(victim.addr).await?;
    Ok(FaultEffect::on(format!("{} and {}", victim.replica, victim.addr), victim.shards))
}

pub(super) async fn library_flushed(testbed: &Testbed) -> Result<FaultEffect> {
    for primary in testbed.redis().primaries().await {
        run_command(testbed, primary, redis::cmd("FUNCTION").arg("FLUSH").arg("SYNC")).await?;
    }
    hold().await;
    Ok(FaultEffect::on("every primary", testbed.all_shards()))
}

pub(super) async fn memory_full(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    run_command(testbed, victim.addr, config_set("maxmemory", "1mb")).await?;
    hold().await;
    run_command(testbed, victim.addr, config_set("maxmemory", "0")).await?;
    Ok(victim.effect())
}

impl Victim {
    pub(super) fn effect(&self) -> FaultEffect {
        FaultEffect::on(self.addr, self.shards.clone())
    }
}

pub(super) fn config_set(setting: &str, value: &str) -> Cmd {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg(setting).arg(value);
    command
}

pub(super) async fn run_command(
    testbed: &Testbed,
    server: std::net::SocketAddr,
    command: impl std::borrow::Borrow<Cmd>,
) -> Result<()> {
    let mut connection = testbed.redis().connection(server).await?;
    Ok(command.borrow().exec_async(&mut connection).await?)
}

/// Makes this server a primary if it is a replica.
pub(super) async fn make_primary(testbed: &Testbed, server: std::net::SocketAddr) -> Result<()> {
    if testbed.redis().replicas().await.contains(&server) {
        testbed.redis().fail_over_to(server, Failover::Agreed).await?;
        testbed.wait_until_whole().await?;
    }
    Ok(())
}

/// The statements that were on their way are executed after the failover: all of their orders passed a barrier before.
pub(super) async fn failover_while_draining(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.orders.postgres().freeze();
    sleep(ON_THE_WAY).await;
    testbed.redis().kill(victim.addr);
    let promoted = testbed.redis().wait_until_promoted(victim.replica).await;
    testbed.orders.postgres().thaw();
    promoted?;
    testbed.redis().restart(victim.addr).await?;
    Ok(victim.effect())
}
