//! Faults of ledgers: killed at named points, frozen, and a statement that arrives late.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::until_ok;
use tokio::time::sleep;

use super::{FaultEffect, ORDERS_STANDSTILL};
use crate::{
    orders::Moment,
    testbed::{Testbed, pick},
};

/// Part of the statement that writes orders.
const WRITES_ORDERS: &str = "INSERT INTO order_events";

/// Time limit for a ledger to write orders. There are none while the cluster recovers from another fault.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// PostgreSQL ends the session of a ledger that is silent for 10 s, and with it the hold on its sinks.
const SESSION_ENDS: Duration = Duration::from_secs(12);

/// Time for which a killed ledger is away.
const AWAY: Duration = Duration::from_secs(1);

/// The ledger dies between its barrier and its statement, right after the statement was sent, or when PostgreSQL has
/// executed it and the ledger does not know.
pub(super) async fn ledger_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let moments = [Moment::BeforeStatement, Moment::AfterStatement, Moment::BeforeAnswer];
    let moment = pick(&moments, draw >> 8).context("no moments")?;
    let (ledger, gate) = testbed.orders.pick_ledger(draw);
    let caught = gate.catch(WRITES_ORDERS, moment, WRITE_LIMIT).await?;
    ledger.process().kill();
    drop(caught);
    sleep(AWAY).await;
    ledger.restart().await?;
    let moment = match moment {
        Moment::BeforeStatement => "after its barrier",
        Moment::AfterStatement => "after its statement was sent",
        Moment::BeforeAnswer => "before the answer to its statement",
    };
    Ok(FaultEffect::on(format!("{} {moment}", ledger.process().name()), Vec::new()))
}

/// It continues with an old cursor, old sales and old connections. Depending on the draw, another ledger has taken over its
/// sinks in the meantime.
pub(super) async fn ledger_frozen(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let (ledger, _) = testbed.orders.pick_ledger(draw);
    let times = [ORDERS_STANDSTILL, SESSION_ENDS];
    let time = pick(&times, draw >> 8).context("no times")?;
    ledger.process().freeze();
    sleep(time).await;
    ledger.process().thaw();
    Ok(FaultEffect::on(format!("{} for {time:.0?}", ledger.process().name()), Vec::new()))
}

/// The network delivers a statement after its orders were written by another one.
pub(super) async fn statement_late(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let (ledger, gate) = testbed.orders.pick_ledger(draw);
    let caught = gate.catch(WRITES_ORDERS, Moment::BeforeStatement, WRITE_LIMIT).await?;
    let cursors = "SELECT sale, creation, shard, incarnation, seq FROM cursors ORDER BY 1, 2, 3, 4";
    let before = testbed.orders.sql(cursors).await?;
    let moved = async || {
        let rows = testbed.orders.sql(cursors).await?;
        ensure!(rows != before, "no cursor moved");
        Ok(())
    };
    until_ok("orders that another statement wrote", WRITE_LIMIT, moved).await?;
    // Long enough for all shards: the caught statement is of one of them.
    sleep(ORDERS_STANDSTILL / 2).await;
    caught.deliver_late().await?;
    Ok(FaultEffect::on(format!("a statement of {}", ledger.process().name()), Vec::new()))
}
