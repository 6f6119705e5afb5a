//! The entries of a journal.

use std::collections::{HashMap, HashSet};

use rediscluster::EpochMs;
use serde::{Deserialize, Serialize};

use crate::answers::{Answer, AnswerKind, ApiFamily};

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
    /// Family of endpoints that the request belongs to.
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
    /// A purchase. Tries of one attempt share its name and order.
    Purchase {
        /// Name of the attempt.
        attempt: String,
        /// The order id, if the name is sent as `Idempotency-Key`. Without a key each try has a random order id.
        order: Option<String>,
    },
    /// A lookup of the user's purchase.
    Lookup,
}

/// The answer to a request, or its failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The number of the request.
    pub request: u64,
    /// Time after the last byte of the answer.
    pub at: Micros,
    /// Meaning of the answer.
    pub kind: AnswerKind,
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

/// A buyer's request with its answer, if any.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request.
    pub invoked: &'a Invoked,
    /// The answer.
    pub answered: Option<&'a Answered>,
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

impl Exchange<'_> {
    /// Returns the meaning of the answer.
    pub fn kind(&self) -> AnswerKind {
        self.answered.map_or(AnswerKind::NoAnswer, |answered| answered.kind)
    }
}

impl BuyerRequest {
    /// Returns the attempt's name and, if that is its key, its order. None if the request is not a purchase.
    pub fn attempt(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Purchase { attempt, order } => Some((attempt, order.as_deref())),
            Self::Lookup => None,
        }
    }

    /// Returns the `Idempotency-Key`, if the request has one.
    pub fn key(&self) -> Option<&str> {
        self.attempt().and_then(|(attempt, order)| order.map(|_| attempt))
    }
}

impl Answered {
    /// Creates the entry of an answer.
    pub fn of(request: u64, at: Micros, answer: &Answer) -> Self {
        let Answer { kind, status, reason, order, .. } = answer;
        Self { request, at, kind: *kind, status: *status, reason: reason.clone(), order: order.clone() }
    }
}

/// Returns all answers, by the number of the request.
pub fn answers(records: &[JournalEntry]) -> HashMap<u64, &Answered> {
    let answered = records.iter().filter_map(|record| match record {
        JournalEntry::Answered(answered) => Some((answered.request, answered)),
        _ => None,
    });
    answered.collect()
}

/// Returns the requests of all buyers, with their answers.
pub fn exchanges(records: &[JournalEntry]) -> impl Iterator<Item = Exchange<'_>> {
    let answers = answers(records);
    records.iter().filter_map(move |record| match record {
        JournalEntry::Invoked(invoked) => {
            Some(Exchange { invoked, answered: answers.get(&invoked.request).copied() })
        }
        _ => None,
    })
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
