//! The entries of a journal.

use std::collections::HashSet;

use rediscluster::EpochMs;
use serde::{Deserialize, Serialize};

/// Microseconds since 1970, by a clock that does not step back while a journal is written.
pub type Micros = u64;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum JournalEntry {
    /// A sale before its first request.
    SaleOpened(SaleOpened),
    /// A buyer's request is about to be sent.
    Invoked(Invoked),
    /// An operator's request is about to be sent.
    Operated(Operated),
    /// The answer to a request, or its failure.
    Answered(Answered),
}

/// The settings of a sale before its first request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleOpened {
    /// Time at which the settings were read.
    pub at: Micros,
    /// Id of the sale.
    pub sale: String,
    /// Units to sell.
    pub total_stock: u64,
    /// First millisecond in which the sale sells.
    pub starts_at: EpochMs,
    /// First millisecond in which the sale no longer sells.
    pub ends_at: EpochMs,
    /// Largest error of a shard's clock in this run, in milliseconds.
    pub clock_error_ms: EpochMs,
}

/// A buyer's request that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invoked {
    /// Number of the request.
    pub request: u64,
    /// Time before it was sent.
    pub at: Micros,
    /// Id of the sale.
    pub sale: String,
    /// Family of calls that the request belongs to.
    pub api: ApiFamily,
    /// The user's id.
    pub user: String,
    /// The user's home shard.
    pub shard: u16,
    /// Receiver of the request: `nginx`, or a node's name.
    pub via: String,
    /// Content of the request.
    pub ask: BuyerRequest,
}

/// The two families of endpoints for buyers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ApiFamily {
    /// `/api/sales/{sale}/…`
    #[default]
    BySale,
    /// `/api/purchase` with a CSRF token, for the default sale.
    SingleSale,
}

/// An operator's request that is about to be sent: one try of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operated {
    /// Number of the request.
    pub request: u64,
    /// Time before it was sent.
    pub at: Micros,
    /// Id of the sale.
    pub sale: String,
    /// Name of the coordinator.
    pub via: String,
    /// Number of the change. All tries of one change share it.
    pub operation: u64,
    /// The change.
    pub change: Change,
}

/// A change that an operator makes to a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Change {
    /// Creates the sale.
    Create {
        /// Units to sell.
        total_stock: u64,
        /// Number of shards.
        shards: u16,
        /// First millisecond in which the sale sells.
        starts_at: EpochMs,
        /// First millisecond in which the sale no longer sells.
        ends_at: EpochMs,
    },
    /// Adds units. The operation's number is its `Idempotency-Key`.
    Restock {
        /// Number of units.
        units: u64,
    },
    /// Pauses the sale.
    Pause,
    /// Resumes the sale.
    Resume,
    /// Moves the end of the sale.
    Extend {
        /// The new end.
        ends_at: EpochMs,
    },
    /// Ends the sale for good.
    End,
}

/// Content of a buyer's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BuyerRequest {
    /// A purchase. Tries of one attempt share key and order.
    Purchase {
        /// The `Idempotency-Key`.
        key: String,
        /// The order id that is derived from this key.
        order: String,
    },
    /// A purchase without an `Idempotency-Key`: each try has a random order id.
    PurchaseWithoutKey {
        /// Name of the attempt, used in the journal only. Its tries share it.
        attempt: String,
    },
    /// A lookup of the user's purchase.
    Lookup,
}

/// Reason that is recorded when a request timed out.
pub const TIMED_OUT: &str = "timed out";

/// The answer to a request, or its failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The number of the request.
    pub request: u64,
    /// Time after the last byte of the answer.
    pub at: Micros,
    /// HTTP status. None if no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Reason of a refusal, or the transport error if no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Order id in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
}

/// Meaning of an answer to a buyer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported<'a> {
    /// The user has a unit, bought by this attempt.
    Purchased(&'a str),
    /// The user has a unit, by this order.
    Has(&'a str),
    /// The user has no unit.
    HasNone,
    /// Refused: all units are sold.
    SoldOut,
    /// Refused: the sale is not selling now.
    NotActive,
    /// The sale does not exist.
    NoSale,
    /// Refused for another reason.
    Refused(&'a str),
    /// The outcome is unknown: retry.
    Unknown,
}

impl JournalEntry {
    /// Returns the time of the entry.
    pub fn at(&self) -> Micros {
        match self {
            Self::SaleOpened(opened) => opened.at,
            Self::Invoked(invoked) => invoked.at,
            Self::Operated(operated) => operated.at,
            Self::Answered(answered) => answered.at,
        }
    }
}

impl Answered {
    /// Returns the meaning of the answer to this request.
    pub fn reported(&self, ask: &BuyerRequest) -> Reported<'_> {
        let (reason, order) = (self.reason.as_deref().unwrap_or("no reason"), self.order.as_deref());
        let is_purchase = *ask != BuyerRequest::Lookup;
        match (self.status, order) {
            (None | Some(429 | 500..), _) => Reported::Unknown,
            (Some(200), order) if is_purchase => Reported::Purchased(order.unwrap_or_default()),
            (Some(200), Some(order)) => Reported::Has(order),
            (Some(200), None) => Reported::HasNone,
            (Some(404), _) => Reported::NoSale,
            (_, Some(order)) if reason == "already_purchased" => Reported::Has(order),
            _ => refusal(reason),
        }
    }

    /// Returns true when the request may still take effect later: it timed out while its connection was open. When the
    /// connection was refused or broken, the process is gone.
    pub fn may_take_effect_late(&self) -> bool {
        self.status.is_none() && self.reason.as_deref() == Some(TIMED_OUT)
    }

    /// Returns true when an operator's change was confirmed, false when it was refused, and `None` when neither is
    /// certain.
    pub fn is_done(&self) -> Option<bool> {
        match self.status {
            Some(200 | 201) => Some(true),
            None | Some(408 | 429 | 500..) => None,
            Some(_) => Some(false),
        }
    }
}

/// Maps the reason of a refusal, in the words of both families of endpoints.
fn refusal(reason: &str) -> Reported<'_> {
    match reason {
        "out_of_stock" | "sold_out" => Reported::SoldOut,
        "sale_not_active" | "not_active" => Reported::NotActive,
        // The token is too old, or signed by a secret that nodes no longer use. The answer brings a new token.
        "csrf" => Reported::Unknown,
        reason => Reported::Refused(reason),
    }
}

/// Returns the entries of one sale, with the answers to its requests.
pub fn of_sale(records: &[JournalEntry], sale: &str) -> Vec<JournalEntry> {
    let mut requests = HashSet::new();
    let belongs = |record: &&JournalEntry| match record {
        JournalEntry::SaleOpened(opened) => opened.sale == sale,
        JournalEntry::Invoked(Invoked { sale: of, request, .. })
        | JournalEntry::Operated(Operated { sale: of, request, .. }) => {
            of == sale && requests.insert(*request)
        }
        JournalEntry::Answered(answered) => requests.contains(&answered.request),
    };
    records.iter().filter(belongs).cloned().collect()
}
