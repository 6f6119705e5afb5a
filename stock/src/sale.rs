//! A sale: its product, its window, and its shards.
//!
//! The configuration is one JSON value in Redis. Only coordinators write it, and each change raises its version. The layout
//! in it is frozen when the sale is created; state, window and total may change.

use std::sync::Arc;

use rediscluster::EpochMs;

use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::ids::{OrderId, SaleId, ShardId, UserId, UserIdKind};
use crate::layout::{CreationId, Fingerprint, HashTag, Incarnation, Shard};
use crate::ring::{Ring, VNODES_DEFAULT};
use crate::split::split;

/// Most units of a sale. Far below 2^53, up to which numbers in Redis' Lua are exact.
pub const TOTAL_STOCK_MAX: u64 = 1_000_000_000;
/// Most versions that a shard can be ahead of its sale's record, which a failover may have lost. A version further ahead
/// is none that a coordinator gave, and is replaced by the recorded one. Equals the limit in `configure.lua`.
pub const VERSIONS_AHEAD_MAX: u64 = 1_000_000;
/// Most shards of a sale. Every snapshot reads all shards, and a steal may try each of them.
pub const SHARDS_MAX: u16 = 256;
/// Longest product name or description, in bytes.
pub const PRODUCT_TEXT_BYTES_MAX: usize = 1_000;

/// The whole configuration of a sale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleConfig {
    /// Id of the sale.
    pub id: SaleId,
    /// Grows with every change. A shard ignores older versions.
    pub version: u64,
    /// State of the sale. Units can be bought inside the window only while it is open.
    pub state: SaleState,
    /// Window in which units can be bought.
    pub window: Window,
    /// Total units: those minted at creation and those added by restocking.
    pub total_stock: u64,
    /// The product.
    pub product: Product,
    /// Interpretation of user ids.
    #[serde(default)]
    pub user_ids: UserIdKind,
    /// The frozen part: shards and ring.
    pub layout: LayoutConfig,
    /// Changes by operators since the creation.
    #[serde(default)]
    pub changes: ChangeHistory,
    /// Set when the sale is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
}

/// State of a sale, independent of its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleState {
    /// Its shards are being created. Nothing is sold before all shards hold their stock.
    #[default]
    Creating,
    /// Sells inside the window.
    Open,
    /// Halted. Can be resumed.
    Paused,
    /// Ended for good.
    Ended,
    /// Ended, and its claims and orders are no longer in Redis.
    Archived,
}

impl SaleState {
    const ALL: [Self; 5] = [Self::Creating, Self::Open, Self::Paused, Self::Ended, Self::Archived];

    /// Parses the word of [`SaleState::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns the word used in configs, shards and admin answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Ended => "ended",
            Self::Archived => "archived",
        }
    }
}

/// Stage in the life of a sale: its state, and where it is in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleStage {
    /// Its shards are being created.
    Creating,
    /// It has not started.
    Upcoming,
    /// It sells, or has sold out, inside its window.
    Open,
    /// Halted by an operator.
    Paused,
    /// Over: by an operator, or by its window, whose end can still be moved.
    Ended,
    /// Over, and its claims and orders are no longer in Redis.
    Archived,
}

impl SaleStage {
    /// All stages, in the order of a sale's life.
    pub const ALL: [Self; 6] =
        [Self::Creating, Self::Upcoming, Self::Open, Self::Paused, Self::Ended, Self::Archived];

    /// Returns the word used in metrics and in answers for operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Upcoming => "upcoming",
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Ended => "ended",
            Self::Archived => "archived",
        }
    }

    /// Parses the word of [`SaleStage::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

/// The time in which a sale sells, by Redis' clock: from `starts_at` (inclusive) until `ends_at` (exclusive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The first millisecond in which the sale sells.
    pub starts_at: EpochMs,
    /// The first millisecond in which it no longer sells.
    pub ends_at: EpochMs,
}

impl Window {
    /// Returns the middle of the window: before it the start is nearer, after it the end.
    pub const fn middle(&self) -> EpochMs {
        self.starts_at.midpoint(self.ends_at)
    }
}

/// The part of a configuration that each shard stores and applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSettings {
    /// Version of the configuration.
    pub version: u64,
    /// State of the sale.
    pub state: SaleState,
    /// Window in which the sale sells.
    pub window: Window,
}

impl ShardSettings {
    /// Describes each setting that differs from the recorded one: `state paused, recorded open`. Empty when all are
    /// equal.
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

/// The product of a sale, as shown to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Name.
    pub name: String,
    /// Price, in the shop's currency.
    pub price: f64,
    /// Short description; may be empty.
    #[serde(default)]
    pub description: String,
}

/// Changes by operators since a sale was created. They show whether an existing sale is the one that a repeated
/// creation asks for, and whether a restock was already done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeHistory {
    /// Units added by restocking. They are part of the total.
    pub restocked: u64,
    /// The end that the sale was created with, if it was moved since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_ends_at: Option<EpochMs>,
    /// All restocks, oldest first.
    pub restocks: Vec<Restock>,
}

/// A restock. A repeated one is recognized by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restock {
    /// Id of the restock.
    pub key: String,
    /// Units added.
    pub units: u64,
}

/// The shards of a sale and the ring over them. Frozen at creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutConfig {
    /// Hash tags of the shards, by shard number.
    pub tags: Vec<HashTag>,
    /// Points of each shard on the ring.
    pub vnodes: u16,
    /// Id of the creation that made the shards, and the secret of the sale's order ids.
    pub creation: CreationId,
    /// Fingerprint of creation, tags and ring, sent with every call to a shard.
    pub fingerprint: Fingerprint,
    /// The incarnations that were opened, by shard number. Empty while the sale is being created.
    #[serde(default)]
    pub incarnations: Vec<Incarnation>,
}

impl LayoutConfig {
    /// Creates a new layout of shards with these tags. No other sale has the same layout.
    pub fn new(tags: Vec<HashTag>) -> Self {
        let creation = CreationId::random();
        let fingerprint = Fingerprint::of(&creation, &tags, VNODES_DEFAULT);
        Self { tags, vnodes: VNODES_DEFAULT, creation, fingerprint, incarnations: Vec::new() }
    }

    /// Returns the layout of the same creation with other shards, for a sale whose shards were lost. Homes, and order ids
    /// of repeated attempts, stay the same. The fingerprint differs, so nothing that a process remembers of the lost shards
    /// is taken for the new ones.
    ///
    /// # Panics
    /// Panics when the number of shards differs, because users would have other homes.
    #[must_use]
    pub fn with_new_shards(&self, tags: Vec<HashTag>) -> Self {
        assert_eq!(tags.len(), self.tags.len(), "the number of shards decides the homes");
        let fingerprint = Fingerprint::of(&self.creation, &tags, self.vnodes);
        Self { tags, fingerprint, incarnations: Vec::new(), ..self.clone() }
    }
}

/// Settings that a sale must not have. The text is meant for the operator who sent them.
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
    /// Without a name, or with a text that is too long or contains control characters.
    #[error(
        "the product name must not be empty, and neither it nor the description may be longer than {PRODUCT_TEXT_BYTES_MAX} bytes or contain control characters"
    )]
    Product,
    /// Line breaks and the like in the name.
    #[error("the product name must not contain control characters")]
    NameCharacters,
    /// Line breaks and the like in the description.
    #[error("the product description must not contain control characters")]
    DescriptionCharacters,
    /// Negative, infinite or not a number.
    #[error("the price must be a number, at least 0")]
    Price,
    /// Stored by a release that computes homes differently.
    #[error("the layout of this sale was made by a release that computes homes otherwise")]
    Layout,
}

impl SaleConfig {
    /// Validates the settings that an operator chooses.
    ///
    /// # Errors
    /// Returns the first [`InvalidSale`] that applies.
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
        let LayoutConfig { tags, vnodes, creation, fingerprint, incarnations } = &self.layout;
        if *fingerprint != Fingerprint::of(creation, tags, *vnodes)
            || !(incarnations.is_empty() || incarnations.len() == tags.len())
        {
            return Err(InvalidSale::Layout);
        }
        Ok(())
    }

    /// Returns true if the sale is archived and all of its shards are gone for good. No call to them is useful then.
    pub fn is_removed(&self) -> bool {
        self.archive.is_some_and(|archive| archive.is_removed)
    }

    /// Returns the stage of the sale at this time.
    pub const fn stage_at(&self, now: EpochMs) -> SaleStage {
        match self.state {
            SaleState::Creating => SaleStage::Creating,
            SaleState::Archived => SaleStage::Archived,
            SaleState::Ended => SaleStage::Ended,
            _ if now >= self.window.ends_at => SaleStage::Ended,
            SaleState::Paused => SaleStage::Paused,
            SaleState::Open if now < self.window.starts_at => SaleStage::Upcoming,
            SaleState::Open => SaleStage::Open,
        }
    }

    /// Returns true if the sale sells nothing any more at this time, unless an operator moves its end.
    pub const fn is_over(&self, now: EpochMs) -> bool {
        matches!(self.stage_at(now), SaleStage::Ended | SaleStage::Archived)
    }

    /// Returns the order id of the user's attempt with this idempotency key.
    pub fn order_id(&self, user: &UserId, idempotency_key: &str) -> OrderId {
        OrderId::derived(self.layout.creation.secret(), &self.id, user, idempotency_key)
    }

    /// Returns the part that each shard holds.
    pub const fn shard_settings(&self) -> ShardSettings {
        ShardSettings { version: self.version, state: self.state, window: self.window }
    }
}

/// A configuration with its ring and shards computed, as every call to the sale needs them. Cheap to clone.
#[derive(Clone)]
pub struct Sale {
    /// The configuration at some version.
    pub config: Arc<SaleConfig>,
    layout: Arc<Layout>,
}

struct Layout {
    ring: Arc<Ring>,
    shards: Vec<Shard>,
}

impl Layout {
    fn new(config: &SaleConfig, ring: Arc<Ring>) -> Arc<Self> {
        let LayoutConfig { tags, fingerprint, incarnations, .. } = &config.layout;
        let shard = |(index, tag)| {
            let incarnation = incarnations.get(usize::from(index));
            Shard::new(&config.id, ShardId::new(index), tag, fingerprint, incarnation)
        };
        Arc::new(Self { ring, shards: (0..).zip(tags).map(shard).collect() })
    }
}

impl Sale {
    /// Computes ring and keys. Takes milliseconds, so it is done once per sale and never on the path of a request.
    ///
    /// # Errors
    /// Returns [`InvalidSale`] when the configuration is not valid.
    pub fn new(config: SaleConfig) -> Result<Self, InvalidSale> {
        config.validate()?;
        let ring = Arc::new(Ring::new(config.layout.tags.len() as u16, config.layout.vnodes));
        Ok(Self { layout: Layout::new(&config, ring), config: Arc::new(config) })
    }

    /// Returns the same sale with another version of its configuration. The ring is computed again only when the layout
    /// differs.
    ///
    /// # Errors
    /// Returns [`InvalidSale`] when the configuration is not valid.
    pub fn at(&self, config: SaleConfig) -> Result<Self, InvalidSale> {
        if config.layout.fingerprint != self.config.layout.fingerprint {
            return Self::new(config);
        }
        config.validate()?;
        let layout = if config.layout == self.config.layout {
            Arc::clone(&self.layout)
        } else {
            Layout::new(&config, Arc::clone(&self.layout.ring))
        };
        Ok(Self { config: Arc::new(config), layout })
    }

    /// Returns true when both sales share homes and shards, so that calls for one are valid for the other.
    pub fn has_same_layout_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.layout, &other.layout)
    }

    /// Returns the fingerprint of the layout. Another sale of the same name has another one, so it is the key of all
    /// that a process remembers of a sale.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.config.layout.fingerprint
    }

    /// Returns the name of the sale's creation. Another sale of the same name has another one; a restored sale keeps it.
    pub fn creation(&self) -> String {
        self.config.layout.creation.name()
    }

    /// Returns the id of the sale.
    pub fn id(&self) -> &SaleId {
        &self.config.id
    }

    /// Returns the ring, which gives homes and donors.
    pub fn ring(&self) -> &Ring {
        &self.layout.ring
    }

    /// Returns all shards, by number.
    pub fn shards(&self) -> &[Shard] {
        &self.layout.shards
    }

    /// Returns one shard.
    ///
    /// # Panics
    /// Panics when the sale has no shard of this number.
    pub fn shard(&self, id: ShardId) -> &Shard {
        &self.layout.shards[id.index()]
    }

    /// Splits `units` over the shards by their share of the ring, so that shards run empty at about the same time.
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
            archive: None,
        }
    }

    #[test]
    fn config_round_trips_through_json() {
        let config = config();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SaleConfig>(&json).unwrap(), config);
    }

    #[test]
    fn split_sums_to_the_total() {
        let sale = Sale::new(config()).unwrap();
        assert_eq!(sale.split(100).iter().sum::<u64>(), 100);
        assert_eq!(sale.shards().len(), 3);
    }

    #[test]
    fn validation_rejects_invalid_settings() {
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
    fn each_creation_has_a_unique_fingerprint() {
        let layout = || LayoutConfig::new(["a", "b", "c"].map(HashTag::new).to_vec());
        assert_ne!(layout().fingerprint, layout().fingerprint);
    }

    #[test]
    fn restored_layout_keeps_homes_and_order_ids() {
        let lost = config();
        let layout = lost.layout.with_new_shards(["1-a", "1-b", "1-c"].map(HashTag::new).to_vec());
        let restored = SaleConfig { layout, ..lost.clone() };
        let user = UserId::parse("ann", UserIdKind::Opaque).unwrap();
        assert_eq!(restored.order_id(&user, "key"), lost.order_id(&user, "key"));
        let [lost, restored] = [lost, restored].map(|config| Sale::new(config).unwrap());
        assert_eq!(restored.creation(), lost.creation());
        assert_ne!(restored.fingerprint(), lost.fingerprint());
        assert_eq!(restored.ring().home(&user), lost.ring().home(&user));
        assert_ne!(Sale::new(config()).unwrap().creation(), lost.creation(), "another sale of this name");
    }

    #[test]
    fn sales_give_different_order_ids_for_the_same_input() {
        let user = UserId::parse("ann", UserIdKind::Opaque).unwrap();
        let (sale, another) = (config(), config());
        assert_ne!(
            sale.order_id(&user, "key"),
            another.order_id(&user, "key"),
            "the same name, two creations"
        );
        let later = SaleConfig { version: 7, state: SaleState::Paused, ..sale.clone() };
        assert_eq!(later.order_id(&user, "key"), sale.order_id(&user, "key"));
    }

    #[test]
    fn sale_of_an_earlier_release_keeps_its_order_ids() {
        let mut json = serde_json::to_value(config()).unwrap();
        json["layout"]["creation"] = "0123456789abcdef".into();
        let earlier: SaleConfig = serde_json::from_value(json).unwrap();
        let user = UserId::parse("ann", UserIdKind::Opaque).unwrap();
        assert_eq!(earlier.order_id(&user, "key").as_str(), "ZFX6YCV1QPHJGS");
    }

    #[test]
    fn secret_of_order_ids_is_not_in_debug_output() {
        let config = config();
        let json = serde_json::to_value(&config).unwrap();
        let secret = json["layout"]["creation"].as_str().unwrap();
        assert_eq!(secret.len(), 32);
        let sale = Sale::new(config.clone()).unwrap();
        let shown = format!("{config:?} {:?} {}", sale.config, sale.creation());
        assert!(!shown.contains(secret), "{shown}");
    }

    #[test]
    fn differences_list_settings_other_than_recorded() {
        let recorded = config().shard_settings();
        assert_eq!(recorded.differences(recorded), Vec::<String>::new());
        let window = Window { ends_at: 7, ..recorded.window };
        let held = ShardSettings { version: 9, state: SaleState::Paused, window };
        let expected = ["version 9, recorded 1", "state paused, recorded open", "end 7, recorded 2000"];
        assert_eq!(held.differences(recorded), expected);
    }

    #[test]
    fn state_round_trips_through_its_word() {
        assert_eq!(SaleState::ALL.map(|state| SaleState::parse(state.as_str())), SaleState::ALL.map(Some));
        assert_eq!(SaleState::parse("closed"), None);
    }

    #[test]
    fn fingerprint_depends_on_the_tags() {
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
        fn price_round_trips_through_json(price in 0.0..1e12_f64) {
            let mut config = config();
            config.product.price = price;
            let json = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(serde_json::from_str::<SaleConfig>(&json).unwrap(), config);
        }
    }
}
