//! The clock of one server steps while it runs.

use anyhow::{Context, Result};
use jiff::SignedDuration;
use testkit::Failover;

use super::{FaultEffect, hold, nodes};
use crate::testbed::{Testbed, pick};

/// A sale is open for hours, so no step changes an answer.
const STEPS: [SignedDuration; 3] =
    [SignedDuration::from_hours(1), SignedDuration::from_secs(20), SignedDuration::from_secs(-20)];

pub(super) async fn clock_stepped(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    let step = pick(&STEPS, draw >> 8).context("there are steps")?;
    let server = pick(&[victim.addr, victim.replica], draw >> 16).context("a pair has two servers")?;
    let fails_over = pick(&[true, false], draw >> 24).context("two ways")?;

    stage.redis().set_clock(server, step)?;
    hold().await;
    if fails_over {
        stage.redis().fail_over_to(victim.replica, Failover::Agreed).await?;
        hold().await;
    }
    let violations =
        nodes::unlike(stage, "that the sale is active", |status| status.status != "ended").await?;

    stage.redis().set_clock(server, SignedDuration::ZERO)?;
    // A server keeps the time of its last election, by the clock that stepped: until then it would ask for no other one.
    stage.redis().restart(server).await?;
    let then = if fails_over { ", and its pair fails over" } else { "" };
    let target = format!("{server} by {step:#}{then}");
    Ok(FaultEffect { violations, ..FaultEffect::to(target, victim.shards) })
}
