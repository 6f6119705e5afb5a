//! The layout of a sale in Redis: the keys of its shards, and the hash tags that spread them over the primaries.
//!
//! Every key of the project is built here. All keys of a shard share one hash tag, so they are in one slot and one
//! function can access all of them. The layout of a sale has a fingerprint, and each making of a shard an incarnation.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use rediscluster::{SLOTS, Slot, slot_of_tag};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{SaleId, ShardId};
use crate::sale::SaleConfig;

/// Set of the ids of all sales.
pub const SALES_KEY: &str = "fs:sales";

/// Set of the ids of the active sales; see [`crate::active`]. It is in the same slot as the list of all sales.
pub const ACTIVE_SALES_KEY: &str = "fs:{fs:sales}:active";

/// Lease of the leading coordinator. It is in the slot of the list of sales: a coordinator that cannot read the list
/// has nothing to lead.
pub const LEASE_KEY: &str = "fs:{fs:sales}:lease";

/// Presence of nodes and coordinators. It is in the same slot, which all of them call often anyway.
pub const PRESENCE_KEY: &str = "fs:{fs:sales}:presence";

/// Secret that all nodes sign with when no setting gives one.
pub const SECRET_KEY: &str = "fs:{fs:sales}:secret";

/// The part of a shard's hash tag after the sale's id. Chosen for the slot that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashTag(String);

impl HashTag {
    /// Creates a tag from a text that is known to be valid.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text of the tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Distinguishes a sale from another sale of the same name. Both have the same keys, so the shards of a sale whose
/// record was lost would otherwise be mistaken for those of the next one.
///
/// It is also the secret of the sale's order ids: 128 bits from a cryptographic generator, known only to the record and
/// the programs that read it. It is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreationId(String);

impl CreationId {
    /// Length of an id that can be a secret. The ids of earlier releases have half of it.
    const SECRET_CHARS: usize = 32;

    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Returns a name of the creation that may be shown: the secret cannot be computed from it. A sale that was restored
    /// keeps it, while its layout changes.
    pub fn name(&self) -> String {
        let digest = Sha256::digest(format!("creation:{}", self.0));
        digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the secret of the sale's order ids. A sale of an earlier release has none.
    pub(crate) fn secret(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|id| id.len() >= Self::SECRET_CHARS)
    }
}

impl fmt::Debug for CreationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CreationId(..)")
    }
}

/// Distinguishes a shard from one that is made later with the same keys, after the first one was lost. Every call that
/// may create a shard proposes another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation(String);

impl Incarnation {
    pub(crate) fn random() -> Self {
        Self(format!("{:08x}", rand::random::<u32>()))
    }

    /// Returns the ring of a shard of this incarnation.
    pub(crate) fn ring(&self, fingerprint: &Fingerprint) -> String {
        format!("{}:{}", fingerprint.as_str(), self.0)
    }

    /// Returns the incarnation of a shard that holds this ring.
    pub(crate) fn of_ring(ring: &str) -> Option<Self> {
        ring.split_once(':').map(|(_, incarnation)| Self(incarnation.to_owned()))
    }

    /// Returns the text that stands for it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Identifies a layout. Equal fingerprints mean the same creation and the same homes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Revision of the computation of homes. A release that computes them differently must raise it.
    const RING_REVISION: u8 = 1;

    pub(crate) fn of(CreationId(creation): &CreationId, tags: &[HashTag], vnodes: u16) -> Self {
        let mut digest = Sha256::new();
        digest.update(format!("{}:{creation}:{vnodes}", Self::RING_REVISION));
        for tag in tags {
            digest.update(format!(":{}", tag.as_str()));
        }
        Self(digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the fingerprint as it is sent with a call.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One shard of a sale: its keys, their slot, and the ring it belongs to.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Number of the shard.
    pub id: ShardId,
    /// Slot of all its keys.
    pub slot: Slot,
    /// Sent with every call, so that a caller with another layout is refused: the fingerprint, and once the sale is
    /// open, also the incarnation of the shard.
    pub ring: String,
    /// Hash: settings, stock, sold, and the counters of the channels.
    pub meta: String,
    /// Hash: user id to claim.
    pub claims: String,
    /// Stream: the orders.
    pub orders: String,
    /// String: empty. Operations that only a coordinator may call ask for it, and no other user of Redis may write it.
    pub control: String,
}

impl Shard {
    pub(crate) fn new(
        sale: &SaleId,
        id: ShardId,
        tag: &HashTag,
        fingerprint: &Fingerprint,
        incarnation: Option<&Incarnation>,
    ) -> Self {
        let tag = format!("{sale}.{}", tag.as_str());
        let key = |part| format!("fs:{{{tag}}}:{part}");
        Self {
            id,
            slot: slot_of_tag(&tag),
            ring: incarnation.map_or_else(|| fingerprint.as_str().to_owned(), |it| it.ring(fingerprint)),
            meta: key("meta"),
            claims: key("claims"),
            orders: key("orders"),
            control: key("control"),
        }
    }

    /// Returns true if a shard that holds this ring accepts the calls for this one. See `check_ring` in `shared.lua`.
    pub fn accepts(&self, held: &str) -> bool {
        held.strip_prefix(&self.ring).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

/// Pattern that matches the meta key of each shard of a sale, with any layout. A sale id contains neither dots nor
/// wildcards.
pub(crate) fn shards_pattern(sale: &SaleId) -> String {
    format!("fs:{{{sale}.*}}:meta")
}

/// A bucket of clients whose limits are counted together. No key exists: the name only selects the slot, and
/// so the primary that counts.
#[derive(Clone, Debug)]
pub struct LimitBucket {
    /// Slot of the bucket.
    pub slot: Slot,
    pub(crate) key: String,
}

impl LimitBucket {
    /// Number of buckets: enough to spread over the primaries, few enough that many clients share a call.
    pub const COUNT: u16 = 16;

    /// Returns all buckets.
    pub fn all() -> Vec<Self> {
        let bucket = |number| {
            let tag = format!("limits.{number}");
            Self { slot: slot_of_tag(&tag), key: format!("fs:{{{tag}}}") }
        };
        (0..Self::COUNT).map(bucket).collect()
    }
}

/// The keys with the places of a client network in one sale: of an IPv4 address, or of a /64, its /56 and its /48. All are
/// in one slot. An address does not appear in them: they contain a digest that depends on the sale.
#[derive(Clone, Debug)]
pub struct PlaceKeys {
    /// Slot of the keys.
    pub slot: Slot,
    /// From the narrowest network to the widest one. Hash: user id to attempts.
    pub(crate) names: Vec<String>,
}

impl PlaceKeys {
    pub(crate) fn new(sale: &SaleConfig, address: IpAddr) -> Self {
        let CreationId(creation) = &sale.layout.creation;
        let (network, hosts) = match address.to_canonical() {
            IpAddr::V4(address) => (format!("{address}"), None),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (format!("{:012x}", bits >> 80), Some((bits >> 64) as u16))
            }
        };
        let digest = Sha256::digest(format!("{creation}:{}:{network}", sale.id));
        let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let tag = format!("networks.{digest}");
        let key = |part: String| format!("fs:{{{tag}}}:places{part}");
        let names = match hosts {
            None => vec![key(String::new())],
            Some(hosts) => {
                vec![key(format!(".{hosts:04x}")), key(format!(".{:02x}", hosts >> 8)), key(String::new())]
            }
        };
        Self { slot: slot_of_tag(&tag), names }
    }
}

/// The keys that each sale has once.
#[derive(Clone, Debug)]
pub struct SaleKeys {
    /// Slot of all these keys.
    pub slot: Slot,
    /// The configuration as JSON.
    pub config: String,
    /// The latest snapshot as JSON.
    pub snapshot: String,
    /// Hash: shard to tokens minted, cumulative.
    pub mint: String,
    /// List: the latest changes as JSON, oldest first.
    pub history: String,
}

impl SaleKeys {
    /// Pattern that matches the configs of all sales, and few other keys.
    pub(crate) const CONFIGS_PATTERN: &str = "fs:{*}:config";

    /// Returns the sale that a configuration key belongs to, or `None` for any other key.
    pub(crate) fn sale_of_config(key: &str) -> Option<SaleId> {
        key.strip_prefix("fs:{")?.strip_suffix("}:config")?.parse().ok()
    }

    /// Returns the keys of this sale.
    pub fn new(sale: &SaleId) -> Self {
        let key = |part| format!("fs:{{{sale}}}:{part}");
        Self {
            slot: slot_of_tag(sale.as_str()),
            config: key("config"),
            snapshot: key("snapshot"),
            mint: key("mint"),
            history: key("history"),
        }
    }
}

/// Chooses tags for `shards` shards so that each owner of slots gets floor or ceil of shards/owners in turn. No two
/// shards share a slot, so each shard can move to another primary independently.
///
/// `owner` returns the owner of a slot. Numbered tags (`s0`, `s1`, …) would sometimes leave a primary without a shard,
/// because the hash of a tag decides its slot.
pub fn choose_tags<O: Ord + Clone>(
    sale: &SaleId,
    shards: u16,
    owner: impl Fn(Slot) -> Option<O>,
) -> Vec<HashTag> {
    choose_tags_with_prefix(sale, "", shards, owner)
}

/// Like [`choose_tags`]. All tags start with `prefix`, so they differ from those with another prefix.
pub fn choose_tags_with_prefix<O: Ord + Clone>(
    sale: &SaleId,
    prefix: &str,
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
                .map(|n| (slot_of_tag(&format!("{sale}.{prefix}{n}")), n))
                .find(|&(slot, _)| owner(slot).as_ref() == Some(turn) && !taken.contains(&slot))?;
            taken.insert(slot);
            Some(HashTag::new(format!("{prefix}{tag}")))
        })
        .collect()
}

/// Most tags tried for one shard. A primary with a single slot of 16,384 is still found with a probability of 1 -
/// 10^-26.
const TAG_TRIES_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flash() -> SaleId {
        "flash".parse().unwrap()
    }

    #[test]
    fn keys_of_a_shard_share_one_slot() {
        let ring = serde_json::from_str("\"f\"").unwrap();
        let shard = Shard::new(&flash(), ShardId::new(3), &HashTag::new("7"), &ring, None);
        assert_eq!(shard.meta, "fs:{flash.7}:meta");
        assert_eq!(shard.claims, "fs:{flash.7}:claims");
        assert_eq!(shard.orders, "fs:{flash.7}:orders");
        assert_eq!(shard.slot, slot_of_tag("flash.7"));
    }

    #[test]
    fn config_key_gives_its_sale() {
        let key = SaleKeys::new(&flash()).config;
        assert_eq!(SaleKeys::sale_of_config(&key), Some(flash()));
        for other in ["fs:{flash}:mint", "fs:{flash.7}:config", "fs:{fs:sales}:config", "flash"] {
            assert_eq!(SaleKeys::sale_of_config(other), None, "{other}");
        }
    }

    #[test]
    fn keys_beside_the_list_share_its_slot() {
        for key in [ACTIVE_SALES_KEY, LEASE_KEY, PRESENCE_KEY, SECRET_KEY] {
            assert_eq!(key.split(['{', '}']).nth(1), Some(SALES_KEY));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn each_primary_gets_floor_or_ceil_of_shards(shards in 1..=64_u16, primaries in 1..=9_u16) {
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
    fn tags_are_empty_without_primaries() {
        assert!(choose_tags(&flash(), 4, |_| None::<u8>).is_empty());
    }
}
