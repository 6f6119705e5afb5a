//! The status of a sale, in both families of endpoints.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The answer to `GET /api/sale/status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleStatus {
    /// The id of the sale.
    pub sale_id: String,
    /// `upcoming`, `active`, `paused` or `ended`.
    pub status: String,
    /// Units not sold yet.
    pub remaining_stock: u64,
    /// Units offered in total.
    pub total_stock: u64,
    /// True when every unit is sold and confirmed.
    pub sold_out: bool,
    /// The end of the sale.
    #[serde(deserialize_with = "timestamp")]
    pub ends_at: Timestamp,
    /// The current time of the sale.
    #[serde(deserialize_with = "timestamp")]
    pub server_time: Timestamp,
}

impl SaleStatus {
    /// Units sold.
    pub fn sold(&self) -> u64 {
        self.total_stock.saturating_sub(self.remaining_stock)
    }
}

/// The answer to `GET /api/status` of the single-sale API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct StockStatus {
    /// Units not sold yet.
    pub stock: u64,
    /// Units sold.
    pub sold: u64,
}

/// Deserializes a timestamp from text.
///
/// # Errors
/// Fails when the text is not a time in ISO 8601.
pub fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
