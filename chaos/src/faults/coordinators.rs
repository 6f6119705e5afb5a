//! Kills all coordinators right after one of them answered an operator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buyers::{journal, read_json};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use testkit::stack::Coordinator;

use super::{FaultEffect, hold, nodes};
use crate::testbed::{SALE, Testbed, pick};

/// Units of a restock: few, compared with the sale's stock.
const UNITS: u64 = 5;

/// Time limit for reading a sale: the coordinator reads every shard.
const READ_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Change {
    Restock,
    Extend,
}

/// The sale, as a coordinator returns it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaleView {
    total_stock: u64,
    #[serde(deserialize_with = "buyers::timestamp")]
    ends_at: Timestamp,
}

/// A confirmed change must be applied by each node without any coordinator.
pub(super) async fn coordinators_gone(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let change = pick(&[Change::Restock, Change::Extend], draw >> 8).context("no changes")?;
    let sale = apply_change(testbed, change, draw).await?;
    let coordinators = testbed.stack.coordinators();
    coordinators.iter().for_each(|coordinator| coordinator.process().kill());

    let expectation = format!("{sale:?}");
    let violations = nodes::mismatches(testbed, &expectation, |status| {
        status.total_stock >= sale.total_stock && status.ends_at >= sale.ends_at
    });
    let violations = violations.await;
    hold().await;
    try_join_all(coordinators.iter().map(|coordinator| coordinator.restart())).await?;
    Ok(FaultEffect {
        violations,
        ..FaultEffect::on(format!("all coordinators after {change:?}"), Vec::new())
    })
}

/// Repeats the change until it is answered. Returns the sale as the coordinator reports it then.
async fn apply_change(testbed: &Testbed, change: Change, draw: u32) -> Result<SaleView> {
    let coordinator = testbed.leader().await?;
    let ends_at = read_sale_view(testbed, &coordinator).await?.ends_at + SignedDuration::from_mins(1);
    let journal_change = match change {
        Change::Restock => journal::Change::Restock { units: UNITS },
        Change::Extend => journal::Change::Extend { ends_at: ends_at.as_millisecond().cast_unsigned() },
    };
    ensure!(
        testbed.operator.apply(SALE, journal_change).await?,
        "{change:?} was not confirmed (draw {draw})"
    );
    read_sale_view(testbed, &coordinator).await
}

async fn read_sale_view(testbed: &Testbed, coordinator: &Coordinator) -> Result<SaleView> {
    let request = testbed.stack.admin().get(coordinator.url(), &format!("sales/{SALE}"));
    read_json(request.timeout(READ_LIMIT)).await
}
