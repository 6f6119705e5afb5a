//! Problems of the orders API.

use std::time::Duration;

use axum::http::StatusCode;
use service::problem::Problem;

use stock::ids::SaleId;

use crate::audit::LedgerAuditError;
use crate::export::Format;
use crate::orders::ReadError;

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::warn!(%error, "orders not read");
        let problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE).detail("The orders cannot be read now. Try again.");
        problem.retry_after(Duration::from_secs(1))
    }
}

pub(super) fn not_found(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail(detail)
}

pub(super) fn unknown_sale() -> Problem {
    not_found("The ledger knows no such sale.")
}

pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(detail.into())
}

/// The answer to a place that the sale has not reached. The orders at these positions are not those that the client has.
pub(super) fn beyond_the_end(after: i64, last: i64) -> Problem {
    let detail = format!(
        "after is {after}, and the last order is {last}: PostgreSQL was restored from a backup. Read again with after=0; \
         order ids show which orders are known."
    );
    Problem::new(StatusCode::CONFLICT).detail(detail)
}

pub(super) fn not_acceptable() -> Problem {
    let known = Format::ALL.map(Format::media_type).join(", ");
    Problem::new(StatusCode::NOT_ACCEPTABLE).detail(format!("Accept must allow one of {known}."))
}

/// The answer when a sale could not be audited.
pub(super) fn cannot_audit(sale: &SaleId, error: &LedgerAuditError) -> Problem {
    if matches!(error, LedgerAuditError::NotInRedis) {
        return not_found("Redis has no sale of this name, so there is nothing to compare.");
    }
    tracing::warn!(sale.id = %sale, %error, "the sale could not be audited");
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("The sale cannot be audited now. Try again.");
    problem.retry_after(Duration::from_secs(1))
}

pub(super) fn too_many_exports() -> Problem {
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("Too many exports at a time. Try again.");
    problem.retry_after(Duration::from_secs(5))
}
