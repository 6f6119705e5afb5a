//! Where a sale lies in Redis: the keys of its shards, and the tags that spread them over the primaries.
//!
//! Every key of the project is built here. All keys of a shard share one hash tag, so they live in one slot
//! and one function may touch them all.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::ids::{SaleId, ShardId};
use crate::sale::Fingerprint;

/// Slots of a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// A slot of the cluster: which primary a key lives on is decided by its slot alone.
pub type Slot = u16;

/// The set of all sales' ids.
pub const SALES_KEY: &str = "fs:sales";

/// Who leads the coordinators. In the slot of the list of sales: whoever cannot read that has nothing to lead.
pub const LEASE_KEY: &str = "fs:{fs:sales}:lease";

/// Which nodes and coordinators are there. In the same slot: who looks there often anyway says so there.
pub const PRESENCE_KEY: &str = "fs:{fs:sales}:presence";

/// What all nodes sign with, where no setting says so.
pub const SECRET_KEY: &str = "fs:{fs:sales}:secret";

/// The slot of a key whose hash tag is this text.
pub fn slot_of_tag(tag: &str) -> Slot {
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % SLOTS
}

/// The part of a shard's hash tag behind the sale's name. Chosen for the slot it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashTag(String);

impl HashTag {
    /// A tag from a text that is known to be good.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One shard of a sale: its keys, their slot, and the ring it belongs to.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Its number.
    pub id: ShardId,
    /// The slot of all its keys.
    pub slot: Slot,
    /// Goes with every call, so that a caller with another layout is refused.
    pub ring: Fingerprint,
    /// Hash: settings, stock, sold, and the channels' counters.
    pub meta: String,
    /// Hash: user id to claim.
    pub claims: String,
    /// Stream: the orders.
    pub orders: String,
}

impl Shard {
    pub(crate) fn new(sale: &SaleId, id: ShardId, tag: &HashTag, ring: &Fingerprint) -> Self {
        let tag = format!("{sale}.{}", tag.as_str());
        let key = |part| format!("fs:{{{tag}}}:{part}");
        Self {
            id,
            slot: slot_of_tag(&tag),
            ring: ring.clone(),
            meta: key("meta"),
            claims: key("claims"),
            orders: key("orders"),
        }
    }
}

/// Matches the meta of each shard of a sale, whatever its layout. A sale's name holds neither a dot nor a wildcard.
pub(crate) fn shards_pattern(sale: &SaleId) -> String {
    format!("fs:{{{sale}.*}}:meta")
}

/// Where a part of all client addresses is counted. There is no key: it only names the slot, and with it the primary
/// that counts.
#[derive(Clone, Debug)]
pub struct LimitBucket {
    /// Its slot.
    pub slot: Slot,
    pub(crate) key: String,
}

impl LimitBucket {
    /// How many there are: enough to spread over the primaries, few enough for many addresses to share a call.
    pub const COUNT: u16 = 16;

    /// All of them.
    pub fn all() -> Vec<Self> {
        let bucket = |number| {
            let tag = format!("limits.{number}");
            Self { slot: slot_of_tag(&tag), key: format!("fs:{{{tag}}}") }
        };
        (0..Self::COUNT).map(bucket).collect()
    }
}

/// The keys that a sale has once.
#[derive(Clone, Debug)]
pub struct SaleKeys {
    /// The slot of all of them.
    pub slot: Slot,
    /// The config as JSON.
    pub config: String,
    /// The latest snapshot as JSON.
    pub snapshot: String,
    /// Hash: shard to tokens minted, cumulative.
    pub mint: String,
}

impl SaleKeys {
    /// Matches the configs of all sales, and little else.
    pub(crate) const CONFIGS_PATTERN: &str = "fs:{*}:config";

    /// The sale whose config has this key, if it is a config's.
    pub(crate) fn sale_of_config(key: &str) -> Option<SaleId> {
        key.strip_prefix("fs:{")?.strip_suffix("}:config")?.parse().ok()
    }

    /// The keys of this sale.
    pub fn new(sale: &SaleId) -> Self {
        let key = |part| format!("fs:{{{sale}}}:{part}");
        Self {
            slot: slot_of_tag(sale.as_str()),
            config: key("config"),
            snapshot: key("snapshot"),
            mint: key("mint"),
        }
    }
}

/// Picks tags for `shards` shards so that each owner of slots gets floor or ceil of shards/owners, in turn,
/// and no two shards share a slot (each can then move to another primary by itself).
///
/// `owner` names who serves a slot. Counting names instead (`s0`, `s1`, …) would leave a primary without a
/// shard now and then: where a name leads is up to its hash.
pub fn choose_tags<O: Ord + Clone>(
    sale: &SaleId,
    shards: u16,
    owner: impl Fn(Slot) -> Option<O>,
) -> Vec<HashTag> {
    let mut owners: BTreeMap<O, Slot> = BTreeMap::new();
    for slot in (0..SLOTS).rev() {
        if let Some(owner) = owner(slot) {
            owners.insert(owner, slot);
        }
    }
    let mut turns: Vec<O> = owners.keys().cloned().collect();
    turns.sort_by_key(|owner| owners[owner]);

    let mut taken = HashSet::new();
    (0..usize::from(shards))
        .map_while(|shard| {
            let turn = turns.get(shard % turns.len().max(1))?;
            let (slot, tag) = (0..TAG_TRIES_MAX)
                .map(|n| (slot_of_tag(&format!("{sale}.{n}")), n))
                .find(|&(slot, _)| owner(slot).as_ref() == Some(turn) && !taken.contains(&slot))?;
            taken.insert(slot);
            Some(HashTag::new(tag.to_string()))
        })
        .collect()
}

/// How many tags are looked at for one shard. A primary with a single slot out of 16,384 is still found with
/// a certainty of 1 - 10^-26.
const TAG_TRIES_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flash() -> SaleId {
        "flash".parse().unwrap()
    }

    #[test]
    fn a_shard_s_keys_lie_in_one_slot() {
        let ring = serde_json::from_str("\"f\"").unwrap();
        let shard = Shard::new(&flash(), ShardId::new(3), &HashTag::new("7"), &ring);
        assert_eq!(shard.meta, "fs:{flash.7}:meta");
        assert_eq!(shard.claims, "fs:{flash.7}:claims");
        assert_eq!(shard.orders, "fs:{flash.7}:orders");
        assert_eq!(shard.slot, slot_of_tag("flash.7"));
    }

    #[test]
    fn a_config_s_key_names_its_sale() {
        let key = SaleKeys::new(&flash()).config;
        assert_eq!(SaleKeys::sale_of_config(&key), Some(flash()));
        for other in ["fs:{flash}:mint", "fs:{flash.7}:config", "fs:{fs:sales}:config", "flash"] {
            assert_eq!(SaleKeys::sale_of_config(other), None, "{other}");
        }
    }

    #[test]
    fn slots_are_redis_s_own() {
        // As CLUSTER KEYSLOT answers.
        assert_eq!(slot_of_tag("foo"), 12182);
        assert_eq!(slot_of_tag("123456789"), 12739);
    }

    #[test]
    fn lease_presence_and_secret_lie_beside_the_list_of_sales() {
        for key in [LEASE_KEY, PRESENCE_KEY, SECRET_KEY] {
            assert_eq!(key.split(['{', '}']).nth(1), Some(SALES_KEY));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_primary_gets_floor_or_ceil_of_the_shards(shards in 1..=64_u16, primaries in 1..=9_u16) {
            let owner = |slot: Slot| Some(u32::from(slot) * u32::from(primaries) / u32::from(SLOTS));
            let tags = choose_tags(&flash(), shards, owner);
            prop_assert_eq!(tags.len(), usize::from(shards));

            let slots: HashSet<_> = tags.iter().map(|tag| slot_of_tag(&format!("flash.{}", tag.as_str()))).collect();
            prop_assert_eq!(slots.len(), usize::from(shards), "two shards share a slot");
            for primary in 0..u32::from(primaries) {
                let held = slots.iter().filter(|&&slot| owner(slot) == Some(primary)).count();
                let floor = usize::from(shards / primaries);
                prop_assert!(held == floor || held == floor + 1, "primary {} holds {}", primary, held);
            }
        }
    }

    #[test]
    fn without_anybody_who_serves_slots_there_are_no_tags() {
        assert!(choose_tags(&flash(), 4, |_| None::<u8>).is_empty());
    }
}
