//! A node dies at a named point in the middle of a steal, at a small sale of its own that then sells out.
//!
//! In the large sale steals are rare and nobody knows when the next one comes. Here all buyers live in one of three
//! shards: when it has sold its part, the next buyer's node steals.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde_json::json;
use stock::{ids::ShardId, sale::Sale};
use testkit::stack::Node;

use super::Harm;
use crate::{
    Shop,
    audit::audit,
    journal::{Journal, read},
    stage::{Stage, connect, read_sale},
};

/// The points, by the names that the sabotaged node knows.
const POINTS: [&str; 4] =
    ["die-after-donate-sent", "die-after-donate", "die-after-accept-sent", "die-after-accept"];

/// Few enough to be sold in a moment, enough for several steals.
const UNITS: u64 = 60;

const SHARDS: u16 = 3;

/// A steal comes as soon as the first shard is dry.
const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// Longest time for the others to sell what is left.
const SELL_OUT_LIMIT: Duration = Duration::from_secs(60);

/// Admin calls wait for every shard.
const ADMIN_LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn node_dies_stealing(stage: &Stage, draw: u32) -> Result<Harm> {
    let point = POINTS[draw as usize % POINTS.len()];
    let program = stage.sabotaged_node.as_ref().context("there is no sabotaged node")?;
    let sale = open_side_sale(stage, &format!("side-{draw}")).await?;
    let journal = Journal::create(stage.stack.folder().path().join(format!("journal-{}.jsonl", sale.id())))?;
    let shop = Shop::new(sale, stage.stack.clone(), journal);
    let doomed = stage.stack.start_node_aside(program, &[("SABOTAGE".into(), point.into())]).await?;

    let home = ShardId::new(draw as u16 % SHARDS);
    let died = steal_until_death(&shop, home, &doomed).await?;
    ensure!(died, "{point}: the node lived on");
    shop.sell_out(SELL_OUT_LIMIT).await?;

    let mut harm =
        Harm::to(format!("{point}, {} at {}", doomed.process().name(), shop.sale().id()), Vec::new());
    let found = audit(&stage.stack, shop.sale(), &read(shop.journal().path())?).await?;
    harm.violations.extend(found.into_iter().map(|what| format!("{point} at {}: {what}", shop.sale().id())));
    Ok(harm)
}

async fn open_side_sale(stage: &Stage, id: &str) -> Result<Sale> {
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

/// Neighbours buy at the doomed node until it is dead; who hears nothing goes to nginx.
async fn steal_until_death(shop: &Shop, home: ShardId, doomed: &Node) -> Result<bool> {
    let neighbours = shop.neighbours(home, UNITS as usize);
    shop.all_buy_at(neighbours, doomed, DEATH_LIMIT).await?;
    Ok(!doomed.process().is_running())
}
