//! Faults of the feed: a ledger killed between delivery and cursor, a broker that is gone or blocks, a bad endpoint.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{task::block_in_place, time::sleep};

use super::{FaultEffect, ORDERS_STANDSTILL, hold};
use crate::{
    orders::{Endpoint, Moment},
    testbed::{Testbed, pick},
};

/// Part of the statement that moves the cursor of a sink.
const MOVES_CURSOR: &str = "UPDATE feeds SET";

/// Time limit for a delivery. There are no orders while the cluster recovers from another fault.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// Time for which a killed ledger is away: another one obtains its sinks.
const AWAY: Duration = Duration::from_secs(1);

/// The events are confirmed, and the cursor does not know: they are delivered again.
pub(super) async fn ledger_killed_publishing(testbed: &Testbed) -> Result<FaultEffect> {
    let ((first, first_gate), (second, second_gate)) =
        (testbed.orders.pick_ledger(0), testbed.orders.pick_ledger(1));
    let catch = |gate: &crate::orders::Gate| {
        let gate = gate.clone();
        async move { gate.catch(MOVES_CURSOR, Moment::BeforeStatement, DELIVERY_LIMIT).await }
    };
    let (ledger, caught) = tokio::select! {
        caught = catch(first_gate) => (first, caught?),
        caught = catch(second_gate) => (second, caught?),
    };
    ledger.process().kill();
    drop(caught);
    sleep(AWAY).await;
    ledger.restart().await?;
    Ok(FaultEffect::on(ledger.process().name(), Vec::new()))
}

pub(super) async fn broker_killed(testbed: &Testbed) -> Result<FaultEffect> {
    testbed.orders.broker().kill();
    hold().await;
    testbed.orders.broker().restart().await?;
    Ok(FaultEffect::on("RabbitMQ", Vec::new()))
}

pub(super) async fn broker_blocked(testbed: &Testbed) -> Result<FaultEffect> {
    block_in_place(|| testbed.orders.broker().block_publishers())?;
    sleep(ORDERS_STANDSTILL).await;
    block_in_place(|| testbed.orders.broker().unblock_publishers())?;
    Ok(FaultEffect::on("RabbitMQ", Vec::new()))
}

pub(super) async fn webhook_fails(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let endpoints = [Endpoint::Fails, Endpoint::Hangs, Endpoint::LosesAnswers];
    let endpoint = pick(&endpoints, draw).context("no endpoints")?;
    testbed.orders.shop().set_endpoint(endpoint);
    sleep(ORDERS_STANDSTILL).await;
    testbed.orders.shop().set_endpoint(Endpoint::Works);
    Ok(FaultEffect::on(format!("the endpoint: {endpoint:?}"), Vec::new()))
}
