//! Reads a sale's claims and settings from Redis. The audit compares clients' answers with them.

use std::collections::HashMap;

use anyhow::{Context, Result};
use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Cluster, EpochMs, Slot};
use stock::{
    layout::Shard,
    sale::{Sale, SaleState, Window},
};

/// The record that a user has a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Id of the order that created the claim.
    pub order: String,
    /// Time of the purchase, by Redis' clock.
    pub at_ms: EpochMs,
}

/// State of a sale at the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// All claims, by user.
    pub claims: HashMap<String, Claim>,
    /// Total units, as counted by the coordinator's audit.
    pub total: u64,
    /// Settings of each shard. Empty if they were not read.
    pub shards: Vec<ShardSettings>,
}

/// Settings that a shard applies to purchases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSettings {
    /// Number of the shard.
    pub shard: u16,
    /// State of the sale in this shard.
    pub state: SaleState,
    /// Time window of the sale in this shard.
    pub window: Window,
}

/// Reads the claims and each shard's settings.
///
/// # Errors
/// Fails when a shard does not answer.
pub async fn read_final_state(cluster: &Cluster, sale: &Sale, total: u64) -> Result<FinalState> {
    let mut shards = Vec::new();
    for shard in sale.shards() {
        let read = cluster.read(ReadSettings { shard }).await;
        shards.push(read.with_context(|| format!("the settings of shard {}", shard.id))?);
    }
    Ok(FinalState { claims: read_claims(cluster, sale).await?, total, shards })
}

/// Reads all claims, by user.
///
/// # Errors
/// Fails when a shard does not answer.
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
        // The field with an empty name keeps the hash in existence before the first purchase.
        fields
            .into_iter()
            .filter(|(user, _)| !user.is_empty())
            .map(|(user, claim)| Ok((user, parse(&claim)?)))
            .collect()
    }
}

fn parse(claim: &str) -> Result<Claim, CallError> {
    let parts = claim.split_once(':').and_then(|(order, at)| Some((order, at.parse().ok()?)));
    let (order, at_ms) = parts.ok_or_else(|| CallError::Malformed(format!("{claim:?} is not a claim")))?;
    Ok(Claim { order: order.to_owned(), at_ms })
}

/// Reads the shard's own fields, not the sale's record: a shard sells by its own fields.
struct ReadSettings<'a> {
    shard: &'a Shard,
}

impl Call for ReadSettings<'_> {
    type Answer = ShardSettings;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&self.shard.meta).arg("state").arg("starts_at").arg("ends_at");
        cmd
    }

    fn answer(&self, reply: Value) -> Result<ShardSettings, CallError> {
        let (state, starts_at, ends_at): (String, EpochMs, EpochMs) = from_redis_value(reply)?;
        let states = [SaleState::Creating, SaleState::Open, SaleState::Paused, SaleState::Ended];
        let state = states.into_iter().find(|known| known.as_str() == state);
        let state = state.ok_or_else(|| CallError::Malformed("a shard in an unknown state".into()))?;
        Ok(ShardSettings {
            shard: self.shard.id.index() as u16,
            state,
            window: Window { starts_at, ends_at },
        })
    }
}
