//! Every coordinator is gone right after one of them answered an operator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde::Deserialize;
use testkit::stack::Coordinator;

use super::{FaultEffect, hold, nodes};
use crate::{
    journal,
    testbed::{SALE, Testbed, pick},
};

/// Few beside the stock.
const UNITS: u64 = 5;

/// A look at a sale reads every shard.
const READ_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Change {
    Restock,
    Extend,
}

/// The sale as a coordinator answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    total_stock: u64,
    #[serde(deserialize_with = "nodes::timestamp")]
    ends_at: Timestamp,
}

/// What an operator was answered holds without any coordinator: each node acts on it.
pub(super) async fn coordinators_gone(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let change = pick(&[Change::Restock, Change::Extend], draw >> 8).context("there are changes")?;
    let answer = carry_out(stage, change, draw).await?;
    let coordinators = stage.stack.coordinators();
    coordinators.iter().for_each(|coordinator| coordinator.process().kill());

    let what = format!("{answer:?}");
    let violations = nodes::unlike(stage, &what, |status| {
        status.total_stock >= answer.total_stock && status.ends_at >= answer.ends_at
    });
    let violations = violations.await?;
    hold().await;
    try_join_all(coordinators.iter().map(|coordinator| coordinator.restart())).await?;
    Ok(FaultEffect {
        violations,
        ..FaultEffect::to(format!("all coordinators after {change:?}"), Vec::new())
    })
}

/// Repeats the change until it is answered; the sale as a coordinator has it then.
async fn carry_out(stage: &Testbed, change: Change, draw: u32) -> Result<Answer> {
    let coordinator = stage.leader().await?;
    let ends_at = read(stage, &coordinator).await?.ends_at + SignedDuration::from_mins(1);
    let made = match change {
        Change::Restock => journal::Change::Restock { units: UNITS },
        Change::Extend => journal::Change::Extend { ends_at: ends_at.as_millisecond().cast_unsigned() },
    };
    ensure!(stage.operator.make(SALE, made).await?, "{change:?} is not done, by draw {draw}");
    read(stage, &coordinator).await
}

async fn read(stage: &Testbed, coordinator: &Coordinator) -> Result<Answer> {
    let request = Client::new().get(format!("{}/admin/sales/{SALE}", coordinator.url()));
    let response = request.bearer_auth(stage.stack.admin_token()).timeout(READ_LIMIT).send().await?;
    ensure!(response.status().is_success(), "{SALE} is not read: {}", response.text().await?);
    Ok(response.json().await?)
}
