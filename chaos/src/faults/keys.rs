//! Deletes single keys. Each of them can be rebuilt from other data.

use std::time::Duration;

use anyhow::{Context, Result};
use buyers::AnswerKind;
use redis::{Cmd, FromRedisValue};
use rediscluster::{Slot, slot_of_tag};
use stock::layout::{LEASE_KEY, PRESENCE_KEY, SALES_KEY, SECRET_KEY, SaleKeys};
use testkit::until;
use tokio::time::{Instant, sleep};

use super::{FaultEffect, HOLD, nodes};
use crate::testbed::{SALE, Testbed, pick};

/// Time limit for rebuilding a key. Coordinators and nodes rewrite their keys every few seconds.
const REBUILD_LIMIT: Duration = Duration::from_secs(15);

/// Pause between two status requests to the nodes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn key_lost(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let sale = SaleKeys::new(testbed.sale.id());
    let shared_keys =
        [SALES_KEY, LEASE_KEY, PRESENCE_KEY, SECRET_KEY].map(|key| (key, slot_of_tag(SALES_KEY)));
    let keys = [&shared_keys[..], &[(sale.snapshot.as_str(), sale.slot)]].concat();
    let (key, slot) = pick(&keys, draw >> 8).context("no keys")?;

    let deleted: u64 = query(testbed, slot, redis::cmd("DEL").arg(key)).await?;
    let mut violations = nodes_without_sale(testbed).await;
    if deleted > 0 {
        let exists = async || exists(testbed, key, slot).await.unwrap_or(false);
        let rebuilt = until("a rebuilt key", REBUILD_LIMIT, exists).await;
        violations.extend(rebuilt.err().map(|_| format!("{key} was not rebuilt within {REBUILD_LIMIT:?}")));
    }
    Ok(FaultEffect { violations, ..FaultEffect::on(key, Vec::new()) })
}

/// Polls all nodes for [`HOLD`] and returns those that answer 404 for the sale, as text.
async fn nodes_without_sale(testbed: &Testbed) -> Vec<String> {
    let mut found = Vec::new();
    let deadline = Instant::now() + HOLD;
    while Instant::now() < deadline {
        for node in testbed.stack.nodes() {
            if nodes::fetch_status(&node).await.kind == AnswerKind::NoSale {
                found.push(format!("{} answers 404 for the sale", node.process().name()));
            }
        }
        sleep(POLL_INTERVAL).await;
    }
    found.sort();
    found.dedup();
    found
}

async fn exists(testbed: &Testbed, key: &str, slot: Slot) -> Result<bool> {
    if key == SALES_KEY {
        return query(testbed, slot, redis::cmd("SISMEMBER").arg(key).arg(SALE)).await;
    }
    query(testbed, slot, redis::cmd("EXISTS").arg(key)).await
}

async fn query<T: FromRedisValue>(testbed: &Testbed, slot: Slot, command: &Cmd) -> Result<T> {
    let primary = testbed.redis().primary_of(slot).await?;
    Ok(command.query_async(&mut testbed.redis().connection(primary).await?).await?)
}
