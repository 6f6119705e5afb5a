//! Faults in the cluster's layout: roles, slots, members, and network partitions.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use testkit::Failover;

use super::{FaultEffect, hold, redis_servers::make_primary};
use crate::testbed::{Testbed, pick};

pub(super) async fn failover(testbed: &Testbed, draw: u32, how: Failover) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    testbed.redis().fail_over_to(victim.replica, how).await?;
    Ok(victim.effect())
}

pub(super) async fn slot_moved(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let SlotMove { shard, slot, from, to } = pick_move(testbed, draw).await?;
    testbed.redis().move_slot(slot, to).await?;
    hold().await;
    testbed.redis().move_slot(slot, from).await?;
    Ok(FaultEffect::on(format!("shard {shard} from {from} to {to} and back"), vec![shard]))
}

/// Kills the target after the move: the moved keys must be on the target's replica by then.
pub(super) async fn slot_moved_target_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let SlotMove { shard, slot, from, to } = pick_move(testbed, draw).await?;
    let target = testbed.victim_at(to).await?;
    testbed.redis().move_slot(slot, to).await?;
    testbed.redis().kill(to);
    testbed.redis().wait_until_promoted(target.replica).await?;
    hold().await;
    testbed.redis().restart(to).await?;
    testbed.wait_until_whole().await?;
    testbed.redis().move_slot(slot, from).await?;
    let shards = [target.shards, vec![shard]].concat();
    Ok(FaultEffect::on(format!("shard {shard} from {from} to {to}, which is killed"), shards))
}

pub(super) async fn primary_added(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let shard = pick(testbed.sale.shards(), draw).context("a sale has shards")?;
    let added = testbed.redis().add_primary().await?;
    testbed.redis().move_slot(shard.slot, added).await?;
    Ok(FaultEffect::on(format!("{added} gets shard {}", shard.id), vec![shard.id.index() as u16]))
}

pub(super) async fn partition(testbed: &Testbed) -> Result<FaultEffect> {
    let namespaced =
        testbed.redis().namespaced_server().context("no server runs in a network namespace of its own")?;
    make_primary(testbed, namespaced).await?;
    let victim = testbed.victim_at(namespaced).await?;
    testbed.redis().disconnect_namespaced_server()?;
    let promoted = testbed.redis().wait_until_promoted(victim.replica).await;
    if promoted.is_ok() {
        hold().await;
    }
    testbed.redis().reconnect_namespaced_server()?;
    promoted.map(|()| victim.effect())
}

/// A planned move of a shard's slot between two primaries.
struct SlotMove {
    shard: u16,
    slot: u16,
    from: SocketAddr,
    to: SocketAddr,
}

async fn pick_move(testbed: &Testbed, draw: u32) -> Result<SlotMove> {
    let shard = pick(testbed.sale.shards(), draw).context("a sale has shards")?;
    let from = testbed.redis().primary_of(shard.slot).await?;
    let others: Vec<_> =
        testbed.redis().primaries().await.into_iter().filter(|&primary| primary != from).collect();
    let to = pick(&others, draw).context("a cluster has several primaries")?;
    Ok(SlotMove { shard: shard.id.index() as u16, slot: shard.slot, from, to })
}
