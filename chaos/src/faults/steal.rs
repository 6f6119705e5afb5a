//! Lets a node die at a named point of a steal, at a small side sale that is then sold out.
//!
//! In the large sale, steals are rare and cannot be predicted. At the side sale all buyers have the same home shard,
//! one of three. Once that shard is empty, the next buyer's node steals. Depending on the draw, all coordinators are dead
//! from the first buyer to the last unit.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, bail};
use buyers::journal::{Journal, read};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use stock::{ids::ShardId, sale::Sale};

use super::{FaultEffect, hold};
use crate::{
    BuyerCrowd,
    audit::audit,
    testbed::{Testbed, connect, read_sale},
};

/// Points of death, by the names that the sabotaged node accepts.
const POINTS: [&str; 4] =
    ["die-after-donate-sent", "die-after-donate", "die-after-accept-sent", "die-after-accept"];

/// Few enough to be sold quickly, enough for several steals.
const UNITS: u64 = 60;

/// Units without coordinators, one in each shard. The donor is empty after the first steal, so a later steal that knows
/// this does not ask it, and brings no tokens along.
const UNITS_WITHOUT_COORDINATORS: u64 = SHARDS as u64;

const SHARDS: u16 = 3;

/// Number of side sales that are tried until a node steals.
const SALES_MAX: usize = 5;

/// Time limit for the buyers whose node steals. A steal begins as soon as the home shard is empty.
const STEAL_LIMIT: Duration = Duration::from_secs(20);

/// Time limit for other buyers to buy the rest.
const SELL_OUT_LIMIT: Duration = Duration::from_secs(60);

/// Opens side sales until a node steals. A coordinator may have moved tokens ahead of a steal, so one may not be
/// enough.
pub(super) async fn node_dies_stealing(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let death = Death {
        point: POINTS[draw as usize % POINTS.len()],
        home: ShardId::new(draw as u16 % SHARDS),
        without_coordinators: (draw >> 8).is_multiple_of(2),
    };
    let mut effect = FaultEffect::default();
    for number in 1..=SALES_MAX {
        let id = format!("side-{draw}-{number}");
        let (died, found) = run_side_sale(testbed, &id, death).await?;
        effect.violations.extend(found.into_iter().map(|what| format!("{death} at {id}: {what}")));
        if died {
            effect.target = format!("{death} at {id}");
            return Ok(effect);
        }
    }
    bail!("{death}: no node stole at any of {SALES_MAX} sales")
}

/// How a node dies.
#[derive(Clone, Copy, Debug)]
struct Death {
    point: &'static str,
    /// The home shard of the first buyers.
    home: ShardId,
    without_coordinators: bool,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.point, if self.without_coordinators { " without coordinators" } else { "" })
    }
}

/// Runs a side sale with a node that dies in its first steal. Returns whether it died, and the audit's findings.
async fn run_side_sale(testbed: &Testbed, id: &str, death: Death) -> Result<(bool, Vec<String>)> {
    let program = testbed.sabotaged_node.as_ref().context("no sabotaged node is configured")?;
    let units = if death.without_coordinators { UNITS_WITHOUT_COORDINATORS } else { UNITS };
    let sale = open_side_sale(testbed, id, units).await?;
    let coordinators = testbed.stack.coordinators();
    let stopped = if death.without_coordinators { &coordinators[..] } else { &[] };
    stopped.iter().for_each(|coordinator| coordinator.process().kill());

    let journal = Journal::create(testbed.stack.folder().path().join(format!("journal-{id}.jsonl")))?;
    let crowd = BuyerCrowd::new(sale, testbed.stack.clone(), journal);
    let failing_node =
        testbed.stack.start_separate_node(program, &[("SABOTAGE".into(), death.point.into())]).await?;
    if death.without_coordinators {
        let mut buyers = crowd.new_buyers_at(death.home, 2);
        let stealing = buyers.pop().context("two buyers")?;
        crowd.buy_all(buyers, Some(&failing_node), STEAL_LIMIT).await?;
        crowd.try_once(&stealing, "first", Some(&failing_node)).await?;
        // Meanwhile the other nodes see that the donor is empty.
        hold().await;
        crowd.buy_all(vec![stealing], None, SELL_OUT_LIMIT).await?;
    } else {
        // Buyers who get no answer from the failing node continue through nginx.
        let buyers = crowd.new_buyers_at(death.home, units as usize);
        crowd.buy_all(buyers, Some(&failing_node), STEAL_LIMIT).await?;
    }
    let died = !failing_node.process().is_running();
    crowd.sell_out(SELL_OUT_LIMIT).await?;
    try_join_all(stopped.iter().map(|coordinator| coordinator.restart())).await?;
    let records = read(crowd.journal().path())?;
    Ok((died, audit(&testbed.stack, crowd.sale(), &records).await?))
}

async fn open_side_sale(testbed: &Testbed, id: &str, units: u64) -> Result<Sale> {
    let coordinator = testbed.leader().await?;
    let now = Timestamp::now();
    let body = json!({
        "id": id,
        "totalStock": units,
        "startsAt": (now - SignedDuration::from_mins(1)).to_string(),
        "endsAt": (now + SignedDuration::from_hours(12)).to_string(),
        "productName": "Aside",
        "productPrice": 1,
        "shards": SHARDS,
    });
    testbed.stack.admin().create(coordinator.url(), &body).await?;
    read_sale(&connect(testbed.redis()).await?, id).await
}
