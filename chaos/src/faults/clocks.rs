//! Steps the clock of one running Redis server.

use anyhow::{Context, Result};
use jiff::SignedDuration;
use testkit::Failover;

use super::{FaultEffect, hold, nodes};
use crate::testbed::{Testbed, pick};

/// Clock steps. The sale's window is much longer, so no step may change an answer.
const STEPS: [SignedDuration; 3] =
    [SignedDuration::from_hours(1), SignedDuration::from_secs(20), SignedDuration::from_secs(-20)];

pub(super) async fn clock_stepped(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    let step = pick(&STEPS, draw >> 8).context("no clock steps")?;
    let server = pick(&[victim.addr, victim.replica], draw >> 16).context("a pair has two servers")?;
    let fails_over = pick(&[true, false], draw >> 24).context("no choice")?;

    testbed.redis().set_clock(server, step)?;
    hold().await;
    if fails_over {
        testbed.redis().fail_over_to(victim.replica, Failover::Agreed).await?;
        hold().await;
    }
    let violations =
        nodes::mismatches(testbed, "a sale that has not ended", |status| status.status != "ended").await;

    testbed.redis().set_clock(server, SignedDuration::ZERO)?;
    // A server remembers the time of its last election by the stepped clock, and starts no other election until that
    // time has passed. The restart clears it.
    testbed.redis().restart(server).await?;
    let then = if fails_over { ", and its pair fails over" } else { "" };
    let target = format!("{server} by {step:#}{then}");
    Ok(FaultEffect { violations, ..FaultEffect::on(target, victim.shards) })
}
