//! The answers of nodes and coordinators that tests and `xtask up` read.

use serde::Deserialize;

/// `GET /api/sale/status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleStatus {
    /// The sale.
    pub sale_id: String,
    /// `upcoming`, `active`, `paused` or `ended`.
    pub status: String,
    /// Units not sold yet.
    pub remaining_stock: u64,
    /// Units there ever were.
    pub total_stock: u64,
    /// The time that the sale goes by, ISO 8601.
    pub server_time: String,
}

impl SaleStatus {
    /// Units sold.
    pub fn sold(&self) -> u64 {
        self.total_stock.saturating_sub(self.remaining_stock)
    }
}

/// `GET /api/status`, the other family's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct StockStatus {
    /// Units not sold yet.
    pub stock: u64,
    /// Units sold.
    pub sold: u64,
}

/// `GET /admin/sales/{sale}/audit`: a full read of the sale.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// Whether every invariant holds.
    pub ok: bool,
    /// Those that do not, for people.
    pub violations: Vec<serde_json::Value>,
    /// Units there ever were.
    pub total: u64,
    /// Units sold.
    pub sold: u64,
    /// Units lying in shards.
    pub stock: u64,
    /// Units on their way from one shard to another.
    pub in_flight: u64,
    /// Users with a claim.
    pub claims: u64,
    /// Orders in the streams.
    pub orders: u64,
}
