//! Finds records and shards by the names of their keys, for when the list that should name them may be lost.
//!
//! Every primary is scanned. There is one key per record and one per shard, few enough to scan them all.

use std::collections::BTreeSet;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Cluster, SLOTS, Slot, Topology};

use crate::ids::SaleId;
use crate::layout::{SaleKeys, shards_pattern};

/// Keys that a primary examines per call. This takes well under a millisecond.
const KEYS_PER_CALL: usize = 1_000;

/// Returns the sales that have a record, durable or not.
///
/// # Errors
/// Fails when a part of the cluster could not be searched.
pub async fn recorded_sales(cluster: &Cluster) -> Result<Vec<SaleId>, CallError> {
    let found = search(cluster, SaleKeys::CONFIGS_PATTERN).await?;
    Ok(found.iter().filter_map(|key| SaleKeys::sale_of_config(key)).collect())
}

/// Returns true when a shard of a sale of this name exists, with any layout.
///
/// # Errors
/// Fails when a part of the cluster could not be searched.
pub async fn has_shards(cluster: &Cluster, sale: &SaleId) -> Result<bool, CallError> {
    shards_of(cluster, sale).await.map(|found| !found.is_empty())
}

/// Returns the meta keys of all shards of sales of this name, with any layout.
///
/// # Errors
/// Fails when a part of the cluster could not be searched.
pub async fn shards_of(cluster: &Cluster, sale: &SaleId) -> Result<BTreeSet<String>, CallError> {
    search(cluster, &shards_pattern(sale)).await
}

async fn search(cluster: &Cluster, pattern: &str) -> Result<BTreeSet<String>, CallError> {
    let slots = one_slot_per_primary(&cluster.topology())?;
    let mut found = BTreeSet::new();
    for slot in slots {
        let mut cursor = 0;
        loop {
            let (next, keys) = cluster.read(Scan { slot, pattern, cursor }).await?;
            found.extend(keys);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(found)
}

/// Fails when a slot has no primary: the searched keys may be in that slot.
fn one_slot_per_primary(topology: &Topology) -> Result<Vec<Slot>, CallError> {
    let (mut asked, mut slots) = (BTreeSet::new(), Vec::new());
    for slot in 0..SLOTS {
        let primary = topology.primary(slot);
        let primary = primary.ok_or_else(|| CallError::Moved(format!("no primary serves slot {slot}")))?;
        if asked.insert(&primary.address) {
            slots.push(slot);
        }
    }
    Ok(slots)
}

/// Reads a page of keys from the primary that serves the slot.
struct Scan<'a> {
    slot: Slot,
    pattern: &'a str,
    cursor: u64,
}

impl Call for Scan<'_> {
    type Answer = (u64, Vec<String>);

    fn slot(&self) -> Slot {
        self.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(self.cursor).arg("MATCH").arg(self.pattern).arg("COUNT").arg(KEYS_PER_CALL);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError> {
        Ok(from_redis_value(reply)?)
    }
}
