//! The truth that clients' words are held against: every claim of a sale, as it stands in Redis.

use std::collections::HashMap;

use anyhow::{Context, Result};
use redis::{Cmd, Value, from_redis_value};
use stock::{
    calls::{Call, CallError},
    cluster::Cluster,
    layout::{Shard, Slot},
    sale::{EpochMs, Sale},
};

/// The record that a user has a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The order that got it.
    pub order: String,
    /// When, by Redis' clock.
    pub at_ms: EpochMs,
}

/// Reads all claims, by user.
///
/// # Errors
/// When a shard does not answer.
pub async fn read_claims(cluster: &Cluster, sale: &Sale) -> Result<HashMap<String, Claim>> {
    let mut claims = HashMap::new();
    for shard in sale.shards() {
        let read = cluster.read(ReadAll { shard }).await;
        claims.extend(read.with_context(|| format!("the claims of shard {}", shard.id))?);
    }
    Ok(claims)
}

struct ReadAll<'a> {
    shard: &'a Shard,
}

impl Call for ReadAll<'_> {
    type Answer = Vec<(String, Claim)>;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        Cmd::hgetall(&self.shard.claims)
    }

    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError> {
        let fields: Vec<(String, String)> = from_redis_value(reply)?;
        // The field without a name is what keeps the hash there while nobody has bought.
        fields
            .into_iter()
            .filter(|(user, _)| !user.is_empty())
            .map(|(user, claim)| Ok((user, parse(&claim)?)))
            .collect()
    }
}

fn parse(claim: &str) -> Result<Claim, CallError> {
    let parts = claim.split_once(':').and_then(|(order, at)| Some((order, at.parse().ok()?)));
    let (order, at_ms) = parts.ok_or_else(|| CallError::Malformed(format!("{claim:?} is no claim")))?;
    Ok(Claim { order: order.to_owned(), at_ms })
}
