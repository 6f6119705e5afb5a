//! Parses the nodes' answers in both families of endpoints.
//!
//! Pure functions of the status, `Retry-After` and the body. An answer that does not match the contract exactly is
//! `Unexpected`: a lenient parser would hide errors from the tests.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::status::SaleStatus;

#[cfg(test)]
mod tests;

/// The two families of endpoints for buyers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ApiFamily {
    /// `/api/sales/{sale}/…`, and `/api/sale/…` for the default sale.
    #[default]
    BySale,
    /// `/api/status`, `/api/purchase`, …: the default sale, with a CSRF token.
    SingleSale,
}

/// Meaning of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnswerKind {
    /// The requested data (a status, a token, events), or a confirmed change of an operator.
    Data,
    /// The user has a unit, bought by this attempt.
    Purchased,
    /// The user has a unit, bought by another attempt.
    AlreadyPurchased,
    /// A lookup found the user's order.
    Found,
    /// A lookup found that the user has no unit.
    FoundNone,
    /// Refused: all units are sold.
    SoldOut,
    /// Refused: the sale is not selling now.
    NotActive,
    /// Refused: the network of the buyer has all units that it may have.
    NetworkFull,
    /// The sale does not exist.
    NoSale,
    /// An operator's change was refused.
    Refused,
    /// 503: nothing was done, retry later.
    Busy,
    /// The outcome is unknown: retry.
    Unknown,
    /// 429: a rate limit was exceeded.
    Limited,
    /// The CSRF token was refused. The answer has a new one.
    CsrfRefused,
    /// The connection was refused or broke.
    #[default]
    NoAnswer,
    /// No answer came in time: the request may still take effect.
    TimedOut,
    /// An answer that is not part of the contract.
    Unexpected,
}

/// An answer as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// A parsed answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its meaning by the contract.
    pub kind: AnswerKind,
    /// The HTTP status, or `None` when no answer came.
    pub status: Option<u16>,
    /// The reason of a refusal in the answer's own word, or the network error when no answer came.
    pub reason: Option<String>,
    /// The order id in the answer.
    pub order: Option<String>,
    /// The CSRF token in the answer.
    pub token: Option<String>,
    /// The value of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl AnswerKind {
    /// The possible outcomes of a purchase, in the order of a report.
    pub const OUTCOMES: [Self; 13] = [
        Self::Purchased,
        Self::AlreadyPurchased,
        Self::SoldOut,
        Self::NotActive,
        Self::NetworkFull,
        Self::NoSale,
        Self::Busy,
        Self::Unknown,
        Self::Limited,
        Self::CsrfRefused,
        Self::NoAnswer,
        Self::TimedOut,
        Self::Unexpected,
    ];

    /// Returns true when a retry would not change the outcome of a purchase or lookup.
    pub fn is_definite(self) -> bool {
        self.has_unit()
            || matches!(
                self,
                Self::SoldOut | Self::NotActive | Self::NetworkFull | Self::FoundNone | Self::NoSale
            )
    }

    /// Returns true when the user has a unit, by the order in the answer.
    pub fn has_unit(self) -> bool {
        matches!(self, Self::Purchased | Self::AlreadyPurchased | Self::Found)
    }

    /// Returns true when the server behaved incorrectly. A rejection with `Retry-After` is not an error.
    pub fn is_error(self) -> bool {
        matches!(self, Self::NoSale | Self::CsrfRefused | Self::NoAnswer | Self::TimedOut | Self::Unexpected)
    }
}

/// Writes the words of the kind: `already purchased`.
impl fmt::Display for AnswerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = String::new();
        for letter in format!("{self:?}").chars() {
            let begins_word = letter.is_uppercase() && !words.is_empty();
            words.extend(begins_word.then_some(' ').into_iter().chain(letter.to_lowercase()));
        }
        f.pad(&words)
    }
}

impl Answer {
    /// Parses the answer to a purchase.
    pub fn to_purchase(family: ApiFamily, received: Received) -> Self {
        Self::parse(received, |status, body| {
            let kind = match family {
                ApiFamily::BySale => purchase_by_sale(status, body),
                ApiFamily::SingleSale => purchase_of_single_sale(status, body),
            };
            kind.filter(|kind| kind.has_unit() == body.text("orderId").is_some())
        })
    }

    /// Parses the answer to a lookup.
    pub fn to_lookup(family: ApiFamily, received: Received) -> Self {
        let has = if family == ApiFamily::BySale { "hasPurchased" } else { "purchased" };
        Self::parse(received, |status, body| {
            match (status, body.0.get(has)?.as_bool()?, body.text("orderId")) {
                (200, true, Some(_)) => Some(AnswerKind::Found),
                (200, false, None) => Some(AnswerKind::FoundNone),
                _ => None,
            }
        })
    }

    /// Parses the answer to a request for the sale's status, or the first event of a subscription to it.
    pub fn to_status(family: ApiFamily, received: Received) -> Self {
        let units = if family == ApiFamily::BySale { "remainingStock" } else { "stock" };
        Self::parse(received, |status, body| {
            let is_complete = body.text("status").is_some() && body.0.get(units).is_some_and(Value::is_u64);
            (status == 200 && is_complete).then_some(AnswerKind::Data)
        })
    }

    /// Parses the answer to a request for a CSRF token.
    pub fn to_csrf(received: Received) -> Self {
        Self::parse(received, |status, body| {
            (status == 200 && body.text("csrfToken").is_some()).then_some(AnswerKind::Data)
        })
    }

    /// Parses the answer to an operator's change.
    pub(crate) fn to_change(received: Received) -> Self {
        let (kind, body) = match received.status {
            200 | 201 => (AnswerKind::Data, &[][..]),
            408 | 429 | 500.. => (AnswerKind::Unknown, &received.body[..]),
            _ => (AnswerKind::Refused, &received.body[..]),
        };
        let reason = Some(String::from_utf8_lossy(body).into_owned()).filter(|reason| !reason.is_empty());
        let Received { status, retry_after, body } = received;
        Self { kind, status: Some(status), reason, retry_after, body, ..Self::default() }
    }

    /// Returns the answer of a request that got none because of this error.
    pub fn lost(error: &reqwest::Error) -> Self {
        let kind = if error.is_timeout() { AnswerKind::TimedOut } else { AnswerKind::NoAnswer };
        Self { kind, reason: Some(format!("{error:?}")), ..Self::default() }
    }

    /// Reads the sale's status in the body.
    pub fn sale_status(&self) -> Option<SaleStatus> {
        serde_json::from_slice(&self.body).ok()
    }

    fn parse(received: Received, by_contract: impl FnOnce(u16, &Body) -> Option<AnswerKind>) -> Self {
        let Received { status, retry_after, body: bytes } = received;
        let body = Body(serde_json::from_slice(&bytes).unwrap_or_default());
        let kind = rejection(status, retry_after, &body).or_else(|| by_contract(status, &body));
        Self {
            kind: kind.unwrap_or(AnswerKind::Unexpected),
            status: Some(status),
            reason: body.reason(status),
            order: body.text("orderId"),
            token: body.text("csrfToken"),
            retry_after,
            body: bytes,
        }
    }
}

/// Writes the meaning, followed by the whole answer, or by the error if none came.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, reason) = (self.kind, self.reason.as_deref().unwrap_or_default());
        match self.status {
            Some(status) => write!(f, "{kind}: {status} {}", String::from_utf8_lossy(&self.body)),
            None => write!(f, "{kind}: {reason}"),
        }
    }
}

/// Returns the kind of a rejection: a 429 or 503 with `Retry-After`, a refused CSRF token, or an unknown sale.
fn rejection(status: u16, retry_after: Option<Duration>, body: &Body) -> Option<AnswerKind> {
    let problem = body.text("type");
    match (status, retry_after) {
        (429, Some(_)) => Some(AnswerKind::Limited),
        (503, Some(_)) if body.has_text("status", "busy") => Some(AnswerKind::Busy),
        (503, Some(_)) => match problem.as_deref() {
            Some("/problems/busy" | "/problems/unavailable") => Some(AnswerKind::Busy),
            // Includes a load balancer that lost its node: the outcome at that node is unknown.
            _ => Some(AnswerKind::Unknown),
        },
        (404, _) if problem.as_deref() == Some("/problems/unknown-sale") => Some(AnswerKind::NoSale),
        (403, _) if problem.as_deref() == Some("/problems/network-full") => Some(AnswerKind::NetworkFull),
        (403, _) if body.has_text("error", "csrf") || problem.as_deref() == Some("/problems/csrf") => {
            Some(AnswerKind::CsrfRefused)
        }
        _ => None,
    }
}

fn purchase_by_sale(status: u16, body: &Body) -> Option<AnswerKind> {
    let success = body.0.get("success").and_then(Value::as_bool)?;
    match (status, success, body.text("reason").as_deref()) {
        (200, true, None) => Some(AnswerKind::Purchased),
        (409, false, Some("already_purchased")) => Some(AnswerKind::AlreadyPurchased),
        (409, false, Some("out_of_stock")) => Some(AnswerKind::SoldOut),
        (403, false, Some("sale_not_active")) => Some(AnswerKind::NotActive),
        _ => None,
    }
}

fn purchase_of_single_sale(status: u16, body: &Body) -> Option<AnswerKind> {
    match (status, body.text("status")?.as_str()) {
        (200, "purchased") => Some(AnswerKind::Purchased),
        (409, "already_purchased") => Some(AnswerKind::AlreadyPurchased),
        (410, "sold_out") => Some(AnswerKind::SoldOut),
        (403, "not_active") => Some(AnswerKind::NotActive),
        _ => None,
    }
}

/// A JSON body. Null if the body is not JSON.
struct Body(Value);

impl Body {
    fn text(&self, member: &str) -> Option<String> {
        self.0.get(member)?.as_str().map(str::to_owned)
    }

    fn has_text(&self, member: &str, word: &str) -> bool {
        self.0.get(member).and_then(Value::as_str) == Some(word)
    }

    /// Returns the reason of a refusal. The single-sale endpoints have it in `error` or `status`. Beside an `error`, its
    /// `reason` only says what is wrong with the token.
    fn reason(&self, status: u16) -> Option<String> {
        let word = || self.text("status").filter(|_| status != 200);
        self.text("error").or_else(|| self.text("reason")).or_else(word)
    }
}
