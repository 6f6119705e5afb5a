//! Changes of the cluster that are nobody's death: roles, slots, members, and the network between them.

use anyhow::{Context, Result};
use testkit::Failover;

use super::{Harm, hold, redis_servers::make_primary};
use crate::stage::{Stage, pick};

pub(super) async fn failover(stage: &Stage, draw: u32, how: Failover) -> Result<Harm> {
    let victim = stage.victim(draw).await?;
    stage.redis().fail_over_to(victim.replica, how).await?;
    Ok(victim.harm())
}

pub(super) async fn slot_moved(stage: &Stage, draw: u32) -> Result<Harm> {
    let shard = pick(stage.sale.shards(), draw).context("a sale has shards")?;
    let here = stage.redis().primary_of(shard.slot).await?;
    let others: Vec<_> =
        stage.redis().primaries().await.into_iter().filter(|&primary| primary != here).collect();
    let there = pick(&others, draw).context("a cluster has several primaries")?;
    stage.redis().move_slot(shard.slot, there).await?;
    hold().await;
    stage.redis().move_slot(shard.slot, here).await?;
    Ok(Harm::to(format!("shard {} from {here} to {there} and back", shard.id), vec![shard.id.index() as u16]))
}

pub(super) async fn primary_added(stage: &Stage, draw: u32) -> Result<Harm> {
    let shard = pick(stage.sale.shards(), draw).context("a sale has shards")?;
    let newcomer = stage.redis().add_primary().await?;
    stage.redis().move_slot(shard.slot, newcomer).await?;
    Ok(Harm::to(format!("{newcomer} gets shard {}", shard.id), vec![shard.id.index() as u16]))
}

pub(super) async fn partition(stage: &Stage) -> Result<Harm> {
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
