//! A request for a sale, and its comparison with an existing one.
//!
//! Creations are repeated by every coordinator that starts, and by clients whose response was lost. So an existing sale
//! is compared with the request. The comparison uses what the sale was created with: later restocks and moved ends do
//! not make it a different sale.

use std::fmt;

use rediscluster::EpochMs;
use service::settings::TimeSetting;
use stock::ids::{SaleId, UserIdKind};
use stock::layout::HashTag;
use stock::sale::{
    ChangeHistory, InvalidSale, LayoutConfig, Product, SHARDS_MAX, Sale, SaleConfig, SaleState, Window,
};

/// A request for a sale.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSale {
    /// Its id.
    pub id: SaleId,
    /// Units to sell.
    pub total_stock: u64,
    /// When it opens.
    pub starts_at: TimeSetting,
    /// When it closes.
    pub ends_at: TimeSetting,
    /// The product on sale.
    pub product: Product,
    /// How user ids are compared.
    pub user_ids: UserIdKind,
    /// Number of shards; by default it depends on the number of primaries and of units.
    pub shards: Option<u16>,
}

/// Units per shard if the request names no number of shards.
const SHARD_UNITS_DEFAULT: u64 = 100_000;
/// Most units that a shard should hold. Moving the slot of a shard to another primary blocks its primary for as long as the
/// claims take to copy: 0.1 s for 120,000 to 0.2 s. With some 500,000 it takes longer than the cluster waits for a primary.
pub const SHARD_UNITS_MAX: u64 = 150_000;

/// The text is not a price that is kept as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number of at most {PRICE_DIGITS_MAX} significant digits, and not -0")]
pub struct InvalidPrice;

/// A 64-bit float holds every decimal number of this many significant digits so that it is read back unaltered.
const PRICE_DIGITS_MAX: usize = f64::DIGITS as usize;

/// Parses a price. Refuses a number that its float would alter.
///
/// # Errors
/// Fails for anything but a number, and for `-0`, infinite ones and those with too many digits.
pub fn price(text: &str) -> Result<f64, InvalidPrice> {
    let price: f64 = text.parse().map_err(|_| InvalidPrice)?;
    let digits: String = text.split(['e', 'E']).next().unwrap_or_default().replace('.', "");
    let digits = digits.trim_start_matches(['+', '-', '0']).trim_end_matches('0');
    let is_kept = digits.is_empty() || (price.is_normal() && digits.len() <= PRICE_DIGITS_MAX);
    (is_kept && (price != 0.0 || price.is_sign_positive())).then_some(price).ok_or(InvalidPrice)
}

/// A setting of a sale that can be invalid, or differ from the existing sale's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the member of the request and the variable that it is displayed as")]
pub enum Field {
    TotalStock,
    StartsAt,
    EndsAt,
    ProductName,
    ProductPrice,
    ProductDescription,
    UserIds,
    Shards,
}

/// Returns what operators should know about the size of a sale. Empty if all is well.
pub fn warnings(sale: &Sale) -> Vec<String> {
    let largest = sale.split(sale.config.total_stock).into_iter().max().unwrap_or_default();
    let too_large = || {
        format!(
            "a shard has up to {largest} units; with more than {SHARD_UNITS_MAX}, moving its slot to another primary blocks the \
             primary for so long that the cluster may replace it; create such a sale with more shards"
        )
    };
    (largest > SHARD_UNITS_MAX).then(too_large).into_iter().collect()
}

impl NewSale {
    /// Returns the number of shards on a cluster with this number of primaries. By default it is the same on each primary, and
    /// as small as the units allow: larger calls cost less.
    pub fn shards_on(&self, primaries: usize) -> u16 {
        let primaries = primaries.clamp(1, SHARDS_MAX.into()) as u64;
        let per_primary = self.total_stock.div_ceil(primaries * SHARD_UNITS_DEFAULT).max(1);
        let most = u64::from(SHARDS_MAX) / primaries * primaries;
        self.shards.unwrap_or((primaries * per_primary).min(most) as u16)
    }

    /// Returns the sale's first configuration, at the time `now`, with shards of these tags.
    pub fn config(&self, tags: Vec<HashTag>, now: EpochMs) -> SaleConfig {
        SaleConfig {
            id: self.id.clone(),
            version: 1,
            state: SaleState::Creating,
            window: Window { starts_at: self.starts_at.resolve(now), ends_at: self.ends_at.resolve(now) },
            total_stock: self.total_stock,
            product: self.product.clone(),
            user_ids: self.user_ids,
            layout: LayoutConfig::new(tags),
            changes: ChangeHistory::default(),
            archive: None,
        }
    }

    /// Validates everything that needs no cluster.
    ///
    /// # Errors
    /// Fails when the settings are not valid for a sale.
    pub fn validate(&self, now: EpochMs) -> Result<(), InvalidSale> {
        // Not part of `SaleConfig::validate`, which also judges sales that exist.
        if self.product.name.chars().any(char::is_control) {
            return Err(InvalidSale::NameCharacters);
        }
        if self.product.description.chars().any(char::is_control) {
            return Err(InvalidSale::DescriptionCharacters);
        }
        let tags = (0..self.shards.unwrap_or(1)).map(|shard| HashTag::new(shard.to_string()));
        self.config(tags.collect(), now).validate()
    }

    /// Returns the settings that an existing sale was created with otherwise. Relative times are not compared, because
    /// they stand for another time whenever they are read.
    pub fn differences(&self, existing: &SaleConfig) -> Vec<Field> {
        let created_stock = existing.total_stock - existing.changes.restocked;
        let created_ends_at = existing.changes.created_ends_at.unwrap_or(existing.window.ends_at);
        let shards = existing.layout.tags.len();
        let differs = [
            (Field::TotalStock, self.total_stock != created_stock),
            (Field::StartsAt, is_different(self.starts_at, existing.window.starts_at)),
            (Field::EndsAt, is_different(self.ends_at, created_ends_at)),
            (Field::ProductName, self.product.name != existing.product.name),
            (Field::ProductPrice, self.product.price != existing.product.price),
            (Field::ProductDescription, self.product.description != existing.product.description),
            (Field::UserIds, self.user_ids != existing.user_ids),
            (Field::Shards, self.shards.is_some_and(|wanted| usize::from(wanted) != shards)),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }
}

fn is_different(wanted: TimeSetting, at: EpochMs) -> bool {
    matches!(wanted, TimeSetting::At(wanted) if wanted != at)
}

impl Field {
    /// The setting that is invalid.
    pub fn of(invalid: &InvalidSale) -> Self {
        match invalid {
            InvalidSale::TotalStock => Self::TotalStock,
            InvalidSale::Shards | InvalidSale::Layout => Self::Shards,
            InvalidSale::Window => Self::EndsAt,
            InvalidSale::Product | InvalidSale::NameCharacters => Self::ProductName,
            InvalidSale::DescriptionCharacters => Self::ProductDescription,
            InvalidSale::Price => Self::ProductPrice,
        }
    }

    /// Its member in a request body.
    pub const fn member(self) -> &'static str {
        self.names().0
    }

    /// Its environment variable, for the default sale.
    pub const fn variable(self) -> &'static str {
        self.names().1
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::TotalStock => ("totalStock", "TOTAL_STOCK"),
            Self::StartsAt => ("startsAt", "SALE_START_TIME"),
            Self::EndsAt => ("endsAt", "SALE_END_TIME"),
            Self::ProductName => ("productName", "PRODUCT_NAME"),
            Self::ProductPrice => ("productPrice", "PRODUCT_PRICE"),
            Self::ProductDescription => ("productDescription", "PRODUCT_DESCRIPTION"),
            Self::UserIds => ("userIds", "USER_IDS"),
            Self::Shards => ("shards", "SHARDS"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.member())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{NOW, chairs};

    fn created(wanted: &NewSale) -> SaleConfig {
        wanted.config(["a", "b"].map(HashTag::new).to_vec(), NOW)
    }

    #[test]
    fn price_is_kept_as_written_or_refused() {
        for (text, kept) in [
            ("0", 0.0),
            ("49.90", 49.9),
            ("1e3", 1000.0),
            ("0.1", 0.1),
            ("123456789012.345", 123456789012.345),
        ] {
            assert_eq!(price(text), Ok(kept), "{text}");
        }
        for text in [
            "-0.0",
            "-0",
            "9007199254740993",
            "0.1000000000000000055",
            "1e-400",
            "1e400",
            "5e-324",
            "inf",
            "nan",
            "",
            "\"7\"",
        ] {
            assert_eq!(price(text), Err(InvalidPrice), "{text}");
        }
    }

    #[test]
    fn product_texts_have_no_control_characters() {
        let with = |name: &str, description: &str| {
            let product = Product { name: name.into(), description: description.into(), ..chairs().product };
            NewSale { product, ..chairs() }.validate(NOW).map_err(|invalid| Field::of(&invalid))
        };
        assert_eq!(with("Ch\u{0}air", ""), Err(Field::ProductName));
        assert_eq!(with("Chair", "Oak\r\nSet-Cookie: a"), Err(Field::ProductDescription));
    }

    #[test]
    fn default_shards_follow_primaries_and_units() {
        let shards =
            |total_stock, primaries| NewSale { shards: None, total_stock, ..chairs() }.shards_on(primaries);
        assert_eq!([shards(1, 1), shards(1, 3), shards(300_000, 3)], [1, 3, 3]);
        assert_eq!([shards(300_001, 3), shards(1_000_000, 3), shards(1_000_000, 6)], [6, 12, 12]);
        assert_eq!([shards(u64::MAX, 3), shards(1, 0), shards(1, 1_000)], [255, 1, 256]);
        assert_eq!(NewSale { shards: Some(7), ..chairs() }.shards_on(3), 7);
    }

    #[test]
    fn default_shards_never_cause_a_warning() {
        for total_stock in [1, 299_999, 300_000, 300_001, 2_000_000, 20_000_000] {
            let wanted = NewSale { shards: None, total_stock, ..chairs() };
            let tags = (0..wanted.shards_on(3)).map(|tag| HashTag::new(tag.to_string())).collect();
            assert_eq!(warnings(&Sale::new(wanted.config(tags, NOW)).unwrap()), [""; 0], "{total_stock}");
        }
    }

    #[test]
    fn shards_with_too_many_units_cause_a_warning() {
        let sale = Sale::new(created(&NewSale { total_stock: 310_000, ..chairs() })).unwrap();
        assert!(warnings(&sale)[0].contains("up to 1"), "{:?}", warnings(&sale));
    }

    #[test]
    fn sale_matches_its_own_request() {
        let wanted = chairs();
        assert_eq!(wanted.differences(&created(&wanted)), []);
        assert_eq!(NewSale { shards: None, ..chairs() }.differences(&created(&wanted)), []);
    }

    #[test]
    fn differences_name_each_changed_setting() {
        let product = |name: &str, price| Product { name: name.into(), price, description: "Oak".into() };
        let other = NewSale {
            id: chairs().id,
            total_stock: 101,
            starts_at: TimeSetting::At(NOW + 1),
            ends_at: TimeSetting::At(NOW + 2),
            product: product("Table", 49.91),
            user_ids: UserIdKind::Email,
            shards: Some(3),
        };
        let names: Vec<_> = other.differences(&created(&chairs())).iter().map(Field::to_string).collect();
        let [times, product] = [["startsAt", "endsAt"], ["productName", "productPrice"]];
        let rest = ["productDescription", "userIds", "shards"];
        assert_eq!(names, [&["totalStock"][..], &times, &product, &rest].concat());
    }

    #[test]
    fn relative_times_are_not_compared() {
        let soon = TimeSetting::After(Duration::from_mins(1));
        let wanted = NewSale { starts_at: soon, ..chairs() };
        let sale = created(&wanted);
        assert_eq!(sale.window.starts_at, NOW + 60_000);
        assert_eq!(
            NewSale { starts_at: TimeSetting::After(Duration::from_mins(2)), ..chairs() }.differences(&sale),
            []
        );
    }

    #[test]
    fn later_changes_are_not_differences() {
        let wanted = chairs();
        let mut sale = created(&wanted);
        sale.total_stock += 50;
        sale.changes.restocked = 50;
        sale.changes.created_ends_at = Some(sale.window.ends_at);
        sale.window.ends_at += 1;
        assert_eq!(wanted.differences(&sale), []);
    }

    #[test]
    fn invalid_settings_are_found_without_a_cluster() {
        assert_eq!(chairs().validate(NOW), Ok(()));
        let reversed = NewSale { ends_at: chairs().starts_at, ..chairs() };
        assert_eq!(reversed.validate(NOW).map_err(|invalid| Field::of(&invalid)), Err(Field::EndsAt));
        assert_eq!(NewSale { shards: Some(0), ..chairs() }.validate(NOW), Err(InvalidSale::Shards));
    }
}
