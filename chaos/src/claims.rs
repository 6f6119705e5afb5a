//! Reads a sale's claims and settings from Redis. The audit compares clients' answers with them.

use std::collections::HashMap;

use anyhow::{Context, Result};
use buyers::{Claim, FinalState};
use rediscluster::Cluster;
use stock::{audit, sale::Sale, snapshot::read_levels};

/// Reads the claims and each shard's settings. A shard sells by its own settings, not by the sale's record.
///
/// # Errors
/// Fails when a shard does not answer.
pub async fn read_final_state(cluster: &Cluster, sale: &Sale, total: u64) -> Result<FinalState> {
    let levels = read_levels(cluster, sale).await.into_iter();
    let shards = levels.map(|level| level.map(|level| level.settings)).collect::<Result<_, _>>();
    let shards = shards.context("the settings of a shard")?;
    Ok(FinalState { claims: read_claims(cluster, sale).await?, total, shards })
}

/// Reads all claims, by user.
///
/// # Errors
/// Fails when a shard does not answer.
pub async fn read_claims(cluster: &Cluster, sale: &Sale) -> Result<HashMap<String, Claim>> {
    let mut claims = HashMap::new();
    for shard in sale.shards() {
        let read = audit::read_claims(cluster, shard).await;
        let read = read.with_context(|| format!("the claims of shard {}", shard.id))?;
        claims.extend(read.into_iter().map(|(user, claim)| {
            (user.to_string(), Claim { order: claim.order.to_string(), at_ms: claim.purchased_at })
        }));
    }
    Ok(claims)
}
