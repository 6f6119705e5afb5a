//! The lines of a journal.

use serde::{Deserialize, Serialize};

/// Microseconds since 1970, by a clock that does not step back while a journal is written.
pub type Micros = u64;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Record {
    /// A request is about to be sent.
    Invoked(Invoked),
    /// Its answer, or that there was none.
    Answered(Answered),
}

/// A request that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invoked {
    /// Its number.
    pub request: u64,
    /// Before it was sent.
    pub at: Micros,
    /// Who asks.
    pub user: String,
    /// The user's home.
    pub shard: u16,
    /// Whom: `nginx`, or a node.
    pub via: String,
    /// For what.
    pub ask: Ask,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// A unit. Tries of one attempt share key and order.
    Purchase {
        /// The `Idempotency-Key`.
        key: String,
        /// The order that this key leads to.
        order: String,
    },
    /// Whether the user has one.
    Lookup,
}

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
pub enum Told<'a> {
    /// A unit is the user's, by this very attempt.
    Purchased(&'a str),
    /// A unit is the user's, by this order.
    Has(&'a str),
    /// The user has none.
    HasNone,
    /// No unit, for this reason.
    Refused(&'a str),
    /// Nothing is certain: ask again.
    Unknown,
}

impl Record {
    /// When it was written down.
    pub fn at(&self) -> Micros {
        match self {
            Self::Invoked(invoked) => invoked.at,
            Self::Answered(answered) => answered.at,
        }
    }

    /// The number of its request.
    pub fn request(&self) -> u64 {
        match self {
            Self::Invoked(invoked) => invoked.request,
            Self::Answered(answered) => answered.request,
        }
    }
}

impl Answered {
    /// What it says to whoever asked for this.
    pub fn told(&self, ask: &Ask) -> Told<'_> {
        let (reason, order) = (self.reason.as_deref().unwrap_or("no reason"), self.order.as_deref());
        match (self.status, ask, order) {
            (None | Some(429 | 500..), ..) => Told::Unknown,
            (Some(200), Ask::Purchase { .. }, order) => Told::Purchased(order.unwrap_or_default()),
            (Some(200), Ask::Lookup, Some(order)) => Told::Has(order),
            (Some(200), Ask::Lookup, None) => Told::HasNone,
            (_, _, Some(order)) if reason == "already_purchased" => Told::Has(order),
            _ => Told::Refused(reason),
        }
    }
}
