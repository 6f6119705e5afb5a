//! Single keys are lost. Each can be rebuilt from what else there is.

use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Cmd, FromRedisValue};
use reqwest::StatusCode;
use stock::layout::{LEASE_KEY, PRESENCE_KEY, SALES_KEY, SECRET_KEY, SaleKeys, Slot, slot_of_tag};
use testkit::until;
use tokio::time::{Instant, sleep};

use super::{FaultEffect, HOLD, nodes};
use crate::testbed::{SALE, Testbed, pick};

/// Coordinators and nodes write what is theirs every few seconds at least.
const REBUILD_LIMIT: Duration = Duration::from_secs(15);

/// Between two looks at what nodes say.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn key_lost(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let sale = SaleKeys::new(stage.sale.id());
    let of_all = [SALES_KEY, LEASE_KEY, PRESENCE_KEY, SECRET_KEY].map(|key| (key, slot_of_tag(SALES_KEY)));
    let keys = [&of_all[..], &[(sale.snapshot.as_str(), sale.slot)]].concat();
    let (key, slot) = pick(&keys, draw >> 8).context("there are keys")?;

    let deleted: u64 = ask(stage, slot, redis::cmd("DEL").arg(key)).await?;
    let mut violations = denials(stage).await;
    if deleted > 0 {
        let is_there = async || is_there(stage, key, slot).await.unwrap_or(false);
        let rebuilt = until("a key that is rebuilt", REBUILD_LIMIT, is_there).await;
        violations.extend(rebuilt.err().map(|_| format!("{key} is not there {REBUILD_LIMIT:?} later")));
    }
    Ok(FaultEffect { violations, ..FaultEffect::to(key, Vec::new()) })
}

/// The nodes that say for a while that there is no such sale.
async fn denials(stage: &Testbed) -> Vec<String> {
    let mut found = Vec::new();
    let deadline = Instant::now() + HOLD;
    while Instant::now() < deadline {
        for node in stage.stack.nodes() {
            if matches!(nodes::ask(&node).await, Ok(Err(StatusCode::NOT_FOUND))) {
                found.push(format!("{} says that there is no such sale", node.process().name()));
            }
        }
        sleep(LOOK_EVERY).await;
    }
    found.sort();
    found.dedup();
    found
}

async fn is_there(stage: &Testbed, key: &str, slot: Slot) -> Result<bool> {
    if key == SALES_KEY {
        return ask(stage, slot, redis::cmd("SISMEMBER").arg(key).arg(SALE)).await;
    }
    ask(stage, slot, redis::cmd("EXISTS").arg(key)).await
}

async fn ask<T: FromRedisValue>(stage: &Testbed, slot: Slot, command: &Cmd) -> Result<T> {
    let primary = stage.redis().primary_of(slot).await?;
    Ok(command.query_async(&mut stage.redis().connection(primary).await?).await?)
}
