//! A sale: what is sold, when, and over which shards.
//!
//! The config is one JSON value in Redis, written only by coordinators and changed only together with its
//! version. The layout in it is frozen when the sale is created; state, window and total may change.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{SaleId, ShardId, UserIdKind};
use crate::layout::{HashTag, Shard};
use crate::ring::{Ring, VNODES_DEFAULT};
use crate::split::split;

/// Most units a sale may have. Far below 2^53, up to which the numbers of Redis' Lua are exact.
pub const TOTAL_STOCK_MAX: u64 = 1_000_000_000;
/// Most shards of a sale. Every snapshot reads them all, and a steal may look at each.
pub const SHARDS_MAX: u16 = 256;
/// Longest product name or description, in bytes.
pub const PRODUCT_TEXT_BYTES_MAX: usize = 1_000;

/// Milliseconds since the Unix epoch.
pub type EpochMs = u64;

/// Everything there is to know of a sale but its stock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleConfig {
    /// The sale's name.
    pub id: SaleId,
    /// Grows with every change; a shard applies only newer ones.
    pub version: u64,
    /// Whether units may be bought inside the window.
    pub state: SaleState,
    /// When units may be bought.
    pub window: Window,
    /// Units in all: minted at creation, and by restocking since.
    pub total_stock: u64,
    /// What is sold.
    pub product: Product,
    /// How user ids are read.
    #[serde(default)]
    pub user_ids: UserIdKind,
    /// The frozen part: shards and ring.
    pub layout: LayoutConfig,
    /// What operators changed since the creation.
    #[serde(default)]
    pub changes: ChangeHistory,
}

/// Whether a sale sells, apart from its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleState {
    /// Its shards are being made; nothing sells before all of them hold their stock.
    #[default]
    Creating,
    /// Sells inside the window.
    Open,
    /// Halted; can be resumed.
    Paused,
    /// Over for good.
    Ended,
}

impl SaleState {
    const ALL: [Self; 4] = [Self::Creating, Self::Open, Self::Paused, Self::Ended];

    /// Reads the word of [`SaleState::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The word in config, shards and admin answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

/// From when until when a sale sells, by Redis' clock: from `starts_at` on, before `ends_at`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The first millisecond in which it sells.
    pub starts_at: EpochMs,
    /// The first millisecond in which it no longer does.
    pub ends_at: EpochMs,
}

impl Window {
    /// The middle: before it the start is nearer, after it the end.
    pub const fn middle(&self) -> EpochMs {
        self.starts_at.midpoint(self.ends_at)
    }
}

/// The part of a config that each shard holds and decides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSettings {
    /// The version of the config that the rest belongs to.
    pub version: u64,
    /// The sale's state.
    pub state: SaleState,
    /// When it sells.
    pub window: Window,
}

impl ShardSettings {
    /// Each setting that is not as recorded, in words: `state paused, recorded open`. Empty where all are.
    pub fn differences(&self, recorded: Self) -> Vec<String> {
        let texts = |settings: &Self| {
            let Self { version, state, window } = settings;
            let times = [window.starts_at, window.ends_at].map(|at| at.to_string());
            [&[version.to_string(), state.as_str().to_owned()], &times[..]].concat()
        };
        let names = ["version", "state", "start", "end"];
        let pairs = names.iter().zip(texts(self)).zip(texts(&recorded));
        let differing = pairs.filter(|((_, held), recorded)| held != recorded);
        differing.map(|((name, held), recorded)| format!("{name} {held}, recorded {recorded}")).collect()
    }
}

/// What is sold, for people to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Its name.
    pub name: String,
    /// Its price, in the shop's currency.
    pub price: f64,
    /// A few words on it; may be empty.
    #[serde(default)]
    pub description: String,
}

/// What operators changed since a sale was created. Without it nobody could tell whether a sale that is there
/// is the one that a repeated creation asks for, nor whether a restock was done before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeHistory {
    /// Units added by restocking, all of them part of the total.
    pub restocked: u64,
    /// The end that the sale was created with, where it was moved since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_ends_at: Option<EpochMs>,
    /// All restocks, oldest first.
    pub restocks: Vec<Restock>,
}

/// A restock, to be recognised when it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restock {
    /// Names it.
    pub key: String,
    /// Units added.
    pub units: u64,
}

/// The shards of a sale and the ring over them. Frozen at creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutConfig {
    /// The tag of each shard; shard n is the n-th.
    pub tags: Vec<HashTag>,
    /// Points of each shard on the ring.
    pub vnodes: u16,
    /// Names the creation that made the shards.
    pub creation: CreationId,
    /// Names creation, tags and ring in every call to a shard.
    pub fingerprint: Fingerprint,
}

impl LayoutConfig {
    /// A new layout of shards with these tags, which no other sale has.
    pub fn new(tags: Vec<HashTag>) -> Self {
        let creation = CreationId::random();
        let fingerprint = Fingerprint::of(&creation, &tags, VNODES_DEFAULT);
        Self { tags, vnodes: VNODES_DEFAULT, creation, fingerprint }
    }
}

/// Tells a sale from another of the same name. Keys are the same for both, so the shards of a sale whose record was
/// lost would otherwise be taken for those of the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreationId(String);

impl CreationId {
    fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()))
    }
}

/// Names a layout: equal fingerprints, the same creation and equal homes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Counts how homes are computed. A release that computes them otherwise must raise it.
    const RING_REVISION: u8 = 1;

    fn of(CreationId(creation): &CreationId, tags: &[HashTag], vnodes: u16) -> Self {
        let mut digest = Sha256::new();
        digest.update(format!("{}:{creation}:{vnodes}", Self::RING_REVISION));
        for tag in tags {
            digest.update(format!(":{}", tag.as_str()));
        }
        Self(digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The fingerprint as it goes with a call.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Settings that no sale can have. The text is fit for the operator who sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSale {
    /// Outside `1..=TOTAL_STOCK_MAX`.
    #[error("total stock must be between 1 and {TOTAL_STOCK_MAX}")]
    TotalStock,
    /// Outside `1..=SHARDS_MAX`.
    #[error("shards must be between 1 and {SHARDS_MAX}")]
    Shards,
    /// Empty or reversed.
    #[error("the sale must end after it starts")]
    Window,
    /// No name, or too many words.
    #[error(
        "the product name must not be empty, nor longer than {PRODUCT_TEXT_BYTES_MAX} bytes; nor the description"
    )]
    Product,
    /// Negative, infinite or not a number.
    #[error("the price must be a number, at least 0")]
    Price,
    /// Stored with another way of computing homes.
    #[error("the layout of this sale was made by a release that computes homes otherwise")]
    Layout,
}

impl SaleConfig {
    /// Checks what an operator can get wrong.
    pub fn validate(&self) -> Result<(), InvalidSale> {
        let texts = [&self.product.name, &self.product.description];
        if !(1..=TOTAL_STOCK_MAX).contains(&self.total_stock) {
            return Err(InvalidSale::TotalStock);
        }
        if !(1..=usize::from(SHARDS_MAX)).contains(&self.layout.tags.len()) {
            return Err(InvalidSale::Shards);
        }
        if self.window.starts_at >= self.window.ends_at {
            return Err(InvalidSale::Window);
        }
        if self.product.name.trim().is_empty() || texts.iter().any(|text| text.len() > PRODUCT_TEXT_BYTES_MAX)
        {
            return Err(InvalidSale::Product);
        }
        if !(self.product.price.is_finite() && self.product.price >= 0.0) {
            return Err(InvalidSale::Price);
        }
        let LayoutConfig { tags, vnodes, creation, fingerprint } = &self.layout;
        if *fingerprint != Fingerprint::of(creation, tags, *vnodes) {
            return Err(InvalidSale::Layout);
        }
        Ok(())
    }

    /// What each shard is to hold of it.
    pub const fn shard_settings(&self) -> ShardSettings {
        ShardSettings { version: self.version, state: self.state, window: self.window }
    }
}

/// A config with the frozen part worked out: what every call on the sale needs. Cheap to clone.
#[derive(Clone)]
pub struct Sale {
    /// The config at some version.
    pub config: Arc<SaleConfig>,
    layout: Arc<Layout>,
}

struct Layout {
    ring: Ring,
    shards: Vec<Shard>,
}

impl Sale {
    /// Works out ring and keys. Takes milliseconds: once a sale, never on a request's path.
    pub fn new(config: SaleConfig) -> Result<Self, InvalidSale> {
        config.validate()?;
        let LayoutConfig { tags, vnodes, fingerprint, .. } = &config.layout;
        let shard = |(index, tag)| Shard::new(&config.id, ShardId::new(index), tag, fingerprint);
        let shards: Vec<Shard> = (0..).zip(tags).map(shard).collect();
        let ring = Ring::new(shards.len() as u16, *vnodes);
        Ok(Self { layout: Arc::new(Layout { ring, shards }), config: Arc::new(config) })
    }

    /// The same sale at another version. The layout is frozen, so it is not worked out again.
    pub fn at(&self, config: SaleConfig) -> Result<Self, InvalidSale> {
        if config.layout != self.config.layout {
            return Self::new(config);
        }
        config.validate()?;
        Ok(Self { config: Arc::new(config), layout: Arc::clone(&self.layout) })
    }

    /// Whether homes and shards are the same as another's: calls of the one serve the other.
    pub fn has_layout_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.layout, &other.layout)
    }

    /// The sale's name.
    pub fn id(&self) -> &SaleId {
        &self.config.id
    }

    /// Homes and donors.
    pub fn ring(&self) -> &Ring {
        &self.layout.ring
    }

    /// All shards, by number.
    pub fn shards(&self) -> &[Shard] {
        &self.layout.shards
    }

    /// One shard.
    ///
    /// # Panics
    /// For a number that is not of this sale.
    pub fn shard(&self, id: ShardId) -> &Shard {
        &self.layout.shards[id.index()]
    }

    /// How many of `units` each shard gets: its measured share of the ring, so that shards run dry together.
    pub fn split(&self, units: u64) -> Vec<u64> {
        split(units, &self.layout.ring.shares())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn config() -> SaleConfig {
        SaleConfig {
            id: "flash".parse().unwrap(),
            version: 1,
            state: SaleState::Open,
            window: Window { starts_at: 1_000, ends_at: 2_000 },
            total_stock: 100,
            product: Product { name: "Chair".into(), price: 49.9, description: String::new() },
            user_ids: UserIdKind::Opaque,
            layout: LayoutConfig::new(["a", "b", "c"].map(HashTag::new).to_vec()),
            changes: ChangeHistory::default(),
        }
    }

    #[test]
    fn a_config_reads_back_as_itself() {
        let config = config();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SaleConfig>(&json).unwrap(), config);
    }

    #[test]
    fn the_stock_of_all_shards_is_the_total() {
        let sale = Sale::new(config()).unwrap();
        assert_eq!(sale.split(100).iter().sum::<u64>(), 100);
        assert_eq!(sale.shards().len(), 3);
    }

    #[test]
    fn settings_that_no_sale_can_have_are_refused() {
        let refused = |change: fn(&mut SaleConfig)| {
            let mut config = config();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert_eq!(refused(|c| c.total_stock = 0), InvalidSale::TotalStock);
        assert_eq!(refused(|c| c.total_stock = TOTAL_STOCK_MAX + 1), InvalidSale::TotalStock);
        assert_eq!(refused(|c| c.layout = LayoutConfig::new(vec![])), InvalidSale::Shards);
        assert_eq!(refused(|c| c.window.ends_at = c.window.starts_at), InvalidSale::Window);
        assert_eq!(refused(|c| c.product.name = " ".into()), InvalidSale::Product);
        assert_eq!(refused(|c| c.product.description = "x".repeat(1_001)), InvalidSale::Product);
        assert_eq!(refused(|c| c.product.price = -0.01), InvalidSale::Price);
        assert_eq!(refused(|c| c.product.price = f64::NAN), InvalidSale::Price);
        assert_eq!(refused(|c| c.layout.vnodes += 1), InvalidSale::Layout);
    }

    #[test]
    fn each_creation_has_a_fingerprint_of_its_own() {
        let layout = || LayoutConfig::new(["a", "b", "c"].map(HashTag::new).to_vec());
        assert_ne!(layout().fingerprint, layout().fingerprint);
    }

    #[test]
    fn settings_that_are_not_as_recorded_are_named() {
        let recorded = config().shard_settings();
        assert_eq!(recorded.differences(recorded), Vec::<String>::new());
        let window = Window { ends_at: 7, ..recorded.window };
        let held = ShardSettings { version: 9, state: SaleState::Paused, window };
        let said = ["version 9, recorded 1", "state paused, recorded open", "end 7, recorded 2000"];
        assert_eq!(held.differences(recorded), said);
    }

    #[test]
    fn each_state_reads_back_as_itself() {
        assert_eq!(SaleState::ALL.map(|state| SaleState::parse(state.as_str())), SaleState::ALL.map(Some));
        assert_eq!(SaleState::parse("closed"), None);
    }

    #[test]
    fn another_layout_has_another_fingerprint() {
        let creation = CreationId::random();
        let of = |tags: &[&'static str]| {
            Fingerprint::of(&creation, &tags.iter().copied().map(HashTag::new).collect::<Vec<_>>(), 8)
        };
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "b", "c"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
    }

    proptest! {
        #[test]
        fn every_price_reads_back_as_itself(price in 0.0..1e12_f64) {
            let mut config = config();
            config.product.price = price;
            let json = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(serde_json::from_str::<SaleConfig>(&json).unwrap(), config);
        }
    }
}
