//! A node dies at a named point in the middle of a steal, at a small sale of its own that then sells out.
//!
//! In the large sale steals are rare and nobody knows when the next one comes. Here all buyers live in one of three
//! shards: when it has sold its part, the next buyer's node steals.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde_json::json;
use stock::{ids::ShardId, sale::Sale};

use super::FaultEffect;
use crate::{
    BuyerCrowd,
    audit::audit,
    journal::{Journal, read},
    testbed::{Testbed, connect, read_sale},
};

/// The points, by the names that the sabotaged node knows.
const POINTS: [&str; 4] =
    ["die-after-donate-sent", "die-after-donate", "die-after-accept-sent", "die-after-accept"];

/// Few enough to be sold in a moment, enough for several steals.
const UNITS: u64 = 60;

const SHARDS: u16 = 3;

/// How many sales are tried until a node steals.
const SALES_MAX: usize = 5;

/// A steal comes as soon as the first shard is dry.
const STEAL_LIMIT: Duration = Duration::from_secs(20);

/// Longest time for the others to sell what is left.
const SELL_OUT_LIMIT: Duration = Duration::from_secs(60);

/// Admin calls wait for every shard.
const ADMIN_LIMIT: Duration = Duration::from_secs(20);

/// Opens sales until a node steals at one, for a coordinator may have brought tokens ahead of it.
pub(super) async fn node_dies_stealing(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let point = POINTS[draw as usize % POINTS.len()];
    let mut harm = FaultEffect::default();
    for number in 1..=SALES_MAX {
        let id = format!("side-{draw}-{number}");
        let (died, found) = sell_aside(stage, &id, point, ShardId::new(draw as u16 % SHARDS)).await?;
        harm.violations.extend(found.into_iter().map(|what| format!("{point} at {id}: {what}")));
        if died {
            harm.target = format!("{point} at {id}");
            return Ok(harm);
        }
    }
    bail!("{point}: no node stole at any of {SALES_MAX} sales")
}

/// A whole sale with a node that is to die in its first steal. Says whether it did, and what the audit found.
async fn sell_aside(stage: &Testbed, id: &str, point: &str, home: ShardId) -> Result<(bool, Vec<String>)> {
    let program = stage.sabotaged_node.as_ref().context("there is no sabotaged node")?;
    let sale = open_side_sale(stage, id).await?;
    let journal = Journal::create(stage.stack.folder().path().join(format!("journal-{id}.jsonl")))?;
    let shop = BuyerCrowd::new(sale, stage.stack.clone(), journal);
    let doomed = stage.stack.start_node_aside(program, &[("SABOTAGE".into(), point.into())]).await?;
    // Who hears nothing at the doomed node goes to nginx.
    shop.all_buy_at(shop.neighbours(home, UNITS as usize), &doomed, STEAL_LIMIT).await?;
    let died = !doomed.process().is_running();
    shop.sell_out(SELL_OUT_LIMIT).await?;
    let records = read(shop.journal().path())?;
    Ok((died, audit(&stage.stack, shop.sale(), &records).await?))
}

async fn open_side_sale(stage: &Testbed, id: &str) -> Result<Sale> {
    let coordinator = stage.leader().await?;
    let now = Timestamp::now();
    let body = json!({
        "id": id,
        "totalStock": UNITS,
        "startsAt": (now - SignedDuration::from_mins(1)).to_string(),
        "endsAt": (now + SignedDuration::from_hours(12)).to_string(),
        "productName": "Aside",
        "productPrice": 1,
        "shards": SHARDS,
    });
    let request = Client::new().post(format!("{}/admin/sales", coordinator.url())).timeout(ADMIN_LIMIT);
    let response = request.bearer_auth(stage.stack.admin_token()).json(&body).send().await?;
    ensure!(response.status().is_success(), "a sale was refused: {}", response.text().await?);
    read_sale(&connect(stage.redis()).await?, id).await
}
