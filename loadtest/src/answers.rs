//! Parses the nodes' answers in both families of endpoints.
//!
//! Pure functions of the status, `Retry-After` and the body. An answer that does not match the contract exactly is
//! `Unexpected`: a lenient parser would hide errors from the load test.

use std::time::Duration;

use serde_json::Value;

#[cfg(test)]
mod tests;

/// The two families of endpoints for buyers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiFamily {
    /// `/api/sales/{sale}/…`, and `/api/sale/…` for the default sale.
    BySale,
    /// `/api/status`, `/api/purchase`, …: the default sale, with a CSRF token.
    SingleSale,
}

/// Kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AnswerKind {
    /// The requested data: a status, a token, events, a lookup.
    Data,
    Purchased,
    AlreadyPurchased,
    SoldOut,
    NotActive,
    /// 503: nothing was done, retry later.
    Busy,
    /// 503: the outcome is unknown.
    Unknown,
    /// 429: a rate limit was exceeded.
    Limited,
    CsrfRefused,
    /// No answer came.
    Transport,
    /// An answer that is not part of the contract.
    Unexpected,
}

/// A parsed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: AnswerKind,
    pub(crate) order: Option<String>,
    /// CSRF token in the answer.
    pub(crate) token: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl AnswerKind {
    /// The possible outcomes of a purchase, in the order of the report.
    pub(crate) const OUTCOMES: [Self; 10] = [
        Self::Purchased,
        Self::AlreadyPurchased,
        Self::SoldOut,
        Self::NotActive,
        Self::Busy,
        Self::Unknown,
        Self::Limited,
        Self::CsrfRefused,
        Self::Transport,
        Self::Unexpected,
    ];

    /// Returns true when a retry would not change the outcome.
    pub(crate) fn is_definite(self) -> bool {
        matches!(self, Self::Purchased | Self::AlreadyPurchased | Self::SoldOut | Self::NotActive)
    }

    /// Returns true when the server behaved incorrectly. A rejection with `Retry-After` is not an error.
    pub(crate) fn is_error(self) -> bool {
        matches!(self, Self::CsrfRefused | Self::Transport | Self::Unexpected)
    }

    /// Returns true when Goose should count the request as a success.
    pub(crate) fn is_success(self) -> bool {
        self == Self::Data || self.is_definite()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Purchased => "purchased",
            Self::AlreadyPurchased => "already purchased",
            Self::SoldOut => "sold out",
            Self::NotActive => "not active",
            Self::Busy => "busy (503)",
            Self::Unknown => "unknown (503)",
            Self::Limited => "limited (429)",
            Self::CsrfRefused => "csrf refused",
            Self::Transport => "no answer",
            Self::Unexpected => "unexpected",
        }
    }
}

impl Answer {
    /// Returns the answer of a request that got none.
    pub(crate) fn none() -> Self {
        Self::of(AnswerKind::Transport)
    }

    /// Parses the answer to a purchase.
    pub(crate) fn to_purchase(
        family: ApiFamily,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let body = Body::read(body);
        let kind = rejection(status, retry_after, &body).or_else(|| match family {
            ApiFamily::BySale => purchase_by_sale(status, &body),
            ApiFamily::SingleSale => purchase_of_single_sale(status, &body),
        });
        let names_order = matches!(kind, Some(AnswerKind::Purchased | AnswerKind::AlreadyPurchased));
        let order = body.text("orderId").filter(|_| names_order);
        match kind {
            Some(kind) if names_order == order.is_some() => {
                Self { order, token: body.text("csrfToken"), retry_after, ..Self::of(kind) }
            }
            _ => Self { retry_after, ..Self::of(AnswerKind::Unexpected) },
        }
    }

    /// Parses the answer to a lookup, with the order if one exists.
    pub(crate) fn to_lookup(
        family: ApiFamily,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let body = Body::read(body);
        let has = body.0.get(if family == ApiFamily::BySale { "hasPurchased" } else { "purchased" });
        let order = body.text("orderId");
        match has.and_then(Value::as_bool) {
            Some(has) if status == 200 && has == order.is_some() => {
                Self { order, ..Self::of(AnswerKind::Data) }
            }
            _ => Self::to_read(status, retry_after, &body, false),
        }
    }

    /// Parses the answer to a request for the sale's status.
    pub(crate) fn to_status(
        family: ApiFamily,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let body = Body::read(body);
        let units = if family == ApiFamily::BySale { "remainingStock" } else { "stock" };
        let is_complete = body.text("status").is_some() && body.0.get(units).is_some_and(Value::is_u64);
        Self::to_read(status, retry_after, &body, is_complete)
    }

    /// Parses the answer to a request for a CSRF token.
    pub(crate) fn to_csrf(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let body = Body::read(body);
        let token = body.text("csrfToken");
        let look = Self::to_read(status, retry_after, &body, token.is_some());
        Self { token, ..look }
    }

    /// Parses the answer to a subscription to the sale's events.
    pub(crate) fn to_listener(
        status: u16,
        retry_after: Option<Duration>,
        first_event: Option<&[u8]>,
    ) -> Self {
        match first_event {
            Some(event) => Self::to_status(ApiFamily::BySale, status, retry_after, event),
            None => Self::to_read(status, retry_after, &Body(Value::Null), false),
        }
    }

    fn to_read(status: u16, retry_after: Option<Duration>, body: &Body, is_complete: bool) -> Self {
        let kind = match rejection(status, retry_after, body) {
            Some(kind) => kind,
            None if status == 200 && is_complete => AnswerKind::Data,
            None => AnswerKind::Unexpected,
        };
        Self { retry_after, ..Self::of(kind) }
    }

    fn of(kind: AnswerKind) -> Self {
        Self { kind, order: None, token: None, retry_after: None }
    }
}

/// Returns the kind of a rejection: a 429 or 503 with `Retry-After`, or a refused CSRF token. None for other answers.
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
    fn read(bytes: &[u8]) -> Self {
        Self(serde_json::from_slice(bytes).unwrap_or_default())
    }

    fn text(&self, member: &str) -> Option<String> {
        self.0.get(member)?.as_str().map(str::to_owned)
    }

    fn has_text(&self, member: &str, word: &str) -> bool {
        self.0.get(member).and_then(Value::as_str) == Some(word)
    }
}
