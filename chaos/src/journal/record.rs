//! The lines of a journal.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use stock::sale::EpochMs;

/// Microseconds since 1970, by a clock that does not step back while a journal is written.
pub type Micros = u64;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum JournalEntry {
    /// A sale as it stood before its first buyer came.
    SaleOpened(SaleOpened),
    /// A buyer's request is about to be sent.
    Invoked(Invoked),
    /// An operator's request is about to be sent.
    Operated(Operated),
    /// The answer to a request, or that there was none.
    Answered(Answered),
}

/// A sale as it stood before its first buyer came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleOpened {
    /// When it was read.
    pub at: Micros,
    /// The sale.
    pub sale: String,
    /// Its units.
    pub total_stock: u64,
    /// The first millisecond in which it sells.
    pub starts_at: EpochMs,
    /// The first millisecond in which it no longer does.
    pub ends_at: EpochMs,
    /// How wrong the clocks of shards may be in this run.
    pub clock_error_ms: EpochMs,
}

/// A request that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invoked {
    /// Its number.
    pub request: u64,
    /// Before it was sent.
    pub at: Micros,
    /// The sale.
    pub sale: String,
    /// The family of calls it belongs to.
    pub api: ApiFamily,
    /// Who asks.
    pub user: String,
    /// The user's home.
    pub shard: u16,
    /// Whom: `nginx`, or a node.
    pub via: String,
    /// For what.
    pub ask: BuyerRequest,
}

/// The two families of calls that nodes answer.
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
    /// Its number.
    pub request: u64,
    /// Before it was sent.
    pub at: Micros,
    /// The sale.
    pub sale: String,
    /// The coordinator.
    pub via: String,
    /// The change that it tries. All tries of one change share this number.
    pub operation: u64,
    /// The change.
    pub change: Change,
}

/// What an operator does to a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Change {
    /// Creates it.
    Create {
        /// Its units.
        total_stock: u64,
        /// Its shards.
        shards: u16,
        /// The first millisecond in which it sells.
        starts_at: EpochMs,
        /// The first millisecond in which it no longer does.
        ends_at: EpochMs,
    },
    /// Adds units. The operation's number is its `Idempotency-Key`.
    Restock {
        /// So many.
        units: u64,
    },
    /// Halts it.
    Pause,
    /// Goes on.
    Resume,
    /// Moves its end.
    Extend {
        /// The new end.
        ends_at: EpochMs,
    },
    /// Ends it for good.
    End,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BuyerRequest {
    /// A unit. Tries of one attempt share key and order.
    Purchase {
        /// The `Idempotency-Key`.
        key: String,
        /// The order that this key leads to.
        order: String,
    },
    /// A unit, without an `Idempotency-Key`: each try has a random order.
    PurchaseWithoutKey {
        /// Names the attempt in the journal only; its tries share it.
        attempt: String,
    },
    /// Whether the user has one.
    Lookup,
}

/// The reason of a request that was given up on because its time was over.
pub const TIMED_OUT: &str = "timed out";

/// An answer, or that there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The number of the request.
    pub request: u64,
    /// After the last byte.
    pub at: Micros,
    /// The status; none if no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The reason that a refusal gives; what broke, if no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The order that the answer names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported<'a> {
    /// A unit is the user's, by this very attempt.
    Purchased(&'a str),
    /// A unit is the user's, by this order.
    Has(&'a str),
    /// The user has none.
    HasNone,
    /// No unit: all are sold.
    SoldOut,
    /// No unit: the sale is not selling now.
    NotActive,
    /// There is no such sale.
    NoSale,
    /// No unit, for another reason.
    Refused(&'a str),
    /// Nothing is certain: ask again.
    Unknown,
}

impl JournalEntry {
    /// When it was written down.
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
    /// What it says to a buyer who asked for this.
    pub fn told(&self, ask: &BuyerRequest) -> Reported<'_> {
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

    /// Whether the request may be read at any later time: it was given up on while its connection stood. A connection
    /// that was refused or broken is that of a process that is gone.
    pub fn may_be_read_late(&self) -> bool {
        self.status.is_none() && self.reason.as_deref() == Some(TIMED_OUT)
    }

    /// Whether an operator's change is done, refused, or neither for certain.
    pub fn is_done(&self) -> Option<bool> {
        match self.status {
            Some(200 | 201) => Some(true),
            None | Some(408 | 429 | 500..) => None,
            Some(_) => Some(false),
        }
    }
}

/// The reasons of both families of calls.
fn refusal(reason: &str) -> Reported<'_> {
    match reason {
        "out_of_stock" | "sold_out" => Reported::SoldOut,
        "sale_not_active" | "not_active" => Reported::NotActive,
        // The token is too old, or signed by a secret that nodes no longer use. The answer brings another.
        "csrf" => Reported::Unknown,
        reason => Reported::Refused(reason),
    }
}

/// The records of one sale, with the answers to its requests.
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
