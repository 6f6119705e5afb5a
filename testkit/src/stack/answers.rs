//! Answers of nodes and coordinators, as read by tests and `xtask up`.

use serde::Deserialize;

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
    /// The current time of the sale, ISO 8601.
    pub server_time: String,
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

/// The answer to `GET /admin/sales/{sale}/audit`, which reads the whole sale.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// True when every invariant holds.
    pub ok: bool,
    /// The violated invariants, for display.
    pub violations: Vec<serde_json::Value>,
    /// Units offered in total.
    pub total: u64,
    /// Units sold.
    pub sold: u64,
    /// Units in the stock of shards.
    pub stock: u64,
    /// Units in channels: donated and not yet accepted.
    pub in_flight: u64,
    /// Number of users with a claim.
    pub claims: u64,
    /// Number of orders in the streams.
    pub orders: u64,
}
