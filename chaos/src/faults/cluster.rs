//! Changes of the cluster that are nobody's death: roles, slots, members, and the network between them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use testkit::Failover;

use super::{FaultEffect, hold, redis_servers::make_primary};
use crate::testbed::{Testbed, pick};

pub(super) async fn failover(stage: &Testbed, draw: u32, how: Failover) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    stage.redis().fail_over_to(victim.replica, how).await?;
    Ok(victim.harm())
}

pub(super) async fn slot_moved(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let Move { shard, slot, here, there } = a_move(stage, draw).await?;
    stage.redis().move_slot(slot, there).await?;
    hold().await;
    stage.redis().move_slot(slot, here).await?;
    Ok(FaultEffect::to(format!("shard {shard} from {here} to {there} and back"), vec![shard]))
}

/// What moved must be on the target's replica by the end of the move.
pub(super) async fn slot_moved_target_killed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let Move { shard, slot, here, there } = a_move(stage, draw).await?;
    let target = stage.victim_at(there).await?;
    stage.redis().move_slot(slot, there).await?;
    stage.redis().kill(there);
    stage.redis().wait_until_promoted(target.replica).await?;
    hold().await;
    stage.redis().restart(there).await?;
    stage.wait_until_whole().await?;
    stage.redis().move_slot(slot, here).await?;
    let shards = [target.shards, vec![shard]].concat();
    Ok(FaultEffect::to(format!("shard {shard} from {here} to {there}, which dies"), shards))
}

pub(super) async fn primary_added(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let shard = pick(stage.sale.shards(), draw).context("a sale has shards")?;
    let newcomer = stage.redis().add_primary().await?;
    stage.redis().move_slot(shard.slot, newcomer).await?;
    Ok(FaultEffect::to(format!("{newcomer} gets shard {}", shard.id), vec![shard.id.index() as u16]))
}

pub(super) async fn partition(stage: &Testbed) -> Result<FaultEffect> {
    let islander = stage.redis().islander().context("no server lives on an island")?;
    make_primary(stage, islander).await?;
    let victim = stage.victim_at(islander).await?;
    stage.redis().cut_off_the_islander()?;
    let promoted = stage.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    stage.redis().reconnect_the_islander()?;
    promoted.map(|()| victim.harm())
}

/// A shard's slot, where it is, and where it is to go.
struct Move {
    shard: u16,
    slot: u16,
    here: SocketAddr,
    there: SocketAddr,
}

async fn a_move(stage: &Testbed, draw: u32) -> Result<Move> {
    let shard = pick(stage.sale.shards(), draw).context("a sale has shards")?;
    let here = stage.redis().primary_of(shard.slot).await?;
    let others: Vec<_> =
        stage.redis().primaries().await.into_iter().filter(|&primary| primary != here).collect();
    let there = pick(&others, draw).context("a cluster has several primaries")?;
    Ok(Move { shard: shard.id.index() as u16, slot: shard.slot, here, there })
}
