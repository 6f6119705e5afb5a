//! Every coordinator is gone right after one of them answered an operator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde::Deserialize;
use serde_json::json;
use testkit::stack::Coordinator;

use super::{Harm, hold, nodes};
use crate::stage::{SALE, Stage, pick};

/// Few beside the stock.
const UNITS: u64 = 5;

/// A change waits for every shard.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);

/// A change is repeated so often: it is refused while a shard is away.
const TRIES_MAX: usize = 5;

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
pub(super) async fn coordinators_gone(stage: &Stage, draw: u32) -> Result<Harm> {
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
    Ok(Harm { violations, ..Harm::to(format!("all coordinators after {change:?}"), Vec::new()) })
}

/// Repeats the change until it is answered.
async fn carry_out(stage: &Stage, change: Change, draw: u32) -> Result<Answer> {
    let coordinator = stage.leader().await?;
    let ends_at = ask(stage, &coordinator, None, draw).await?.ends_at + SignedDuration::from_mins(1);
    let mut answer = ask(stage, &coordinator, Some((change, ends_at)), draw).await;
    for _ in 1..TRIES_MAX {
        if answer.is_ok() {
            break;
        }
        hold().await;
        answer = ask(stage, &coordinator, Some((change, ends_at)), draw).await;
    }
    answer
}

/// Reads the sale, or changes it.
async fn ask(
    stage: &Stage,
    coordinator: &Coordinator,
    change: Option<(Change, Timestamp)>,
    draw: u32,
) -> Result<Answer> {
    let (client, url) = (Client::new(), format!("{}/admin/sales/{SALE}", coordinator.url()));
    let request = match change {
        None => client.get(url),
        Some((Change::Restock, _)) => {
            let request = client.post(format!("{url}/restock")).json(&json!({ "units": UNITS }));
            request.header("idempotency-key", format!("restock-{draw}"))
        }
        Some((Change::Extend, ends_at)) => {
            client.post(format!("{url}/extend")).json(&json!({ "endsAt": ends_at.to_string() }))
        }
    };
    let response = request.bearer_auth(stage.stack.admin_token()).timeout(CHANGE_LIMIT).send().await?;
    ensure!(response.status().is_success(), "{change:?} is refused: {}", response.text().await?);
    Ok(response.json().await?)
}
