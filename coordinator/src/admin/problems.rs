//! Problem responses for failed requests of operators. Details that clients must not see are logged.

use std::fmt::Display;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use service::problem::{Problem, ProblemType};
use stock::sale::InvalidSale;

use crate::change::ChangeError;
use crate::new_sale::Field;
use crate::operations::OperationError;
use crate::transfers::UnconfirmedShard;

/// When to repeat a request that failed because of a failover or another operator.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const NO_SALE: ProblemType = kind("/problems/no-sale", "No such sale");
const DIFFERENT: ProblemType = kind("/problems/different-settings", "The sale exists with other settings");
const RECORD_LOST: ProblemType = kind("/problems/record-lost", "The sale's record is lost");
const INVALID: ProblemType = kind("/problems/invalid-sale", "Invalid sale");
const REFUSED: ProblemType = kind("/problems/refused", "Change refused");
const UNKNOWN_OUTCOME: ProblemType = kind("/problems/unknown-outcome", "Outcome unknown");
const UNCONFIRMED: ProblemType = kind("/problems/unconfirmed", "Recorded, but not confirmed by every shard");

const fn kind(uri: &'static str, title: &'static str) -> ProblemType {
    ProblemType { uri, title }
}

impl From<OperationError> for Problem {
    fn from(failure: OperationError) -> Self {
        match &failure {
            OperationError::NoSale(_) => {
                Self::new(StatusCode::NOT_FOUND).of_kind(NO_SALE).detail(sentence(&failure))
            }
            OperationError::RecordLost(_) => logged(
                &failure,
                Self::new(StatusCode::CONFLICT).of_kind(RECORD_LOST).detail(sentence(&failure)),
            ),
            OperationError::DifferentSettings { fields, .. } => different(fields).detail(sentence(&failure)),
            OperationError::Invalid(invalid) => invalid_sale(invalid),
            OperationError::Refused(refusal) => refused(refusal),
            OperationError::NotEnded(_) => {
                let detail = "Not every shard confirms that the sale has ended. Nothing was changed. Repeat the request.";
                logged(&failure, unavailable().detail(detail))
            }
            OperationError::Archived => {
                Self::new(StatusCode::CONFLICT).of_kind(REFUSED).detail(sentence(&failure))
            }
            OperationError::Contended
            | OperationError::NotEnoughSlots(_)
            | OperationError::AuditBusy
            | OperationError::ListLost => unavailable().detail(sentence(&failure)),
            OperationError::Unreadable(_) | OperationError::AuditFailed(_) => {
                logged(&failure, unavailable().detail("The sale cannot be read now. Repeat the request."))
            }
            OperationError::UnknownOutcome(_) => {
                let detail = "The request may or may not have been recorded. Repeat it; a restock only with the same \
                              Idempotency-Key.";
                logged(&failure, unavailable().of_kind(UNKNOWN_OUTCOME).detail(detail))
            }
            OperationError::Unconfirmed(shards) => logged(&failure, unconfirmed(shards)),
        }
    }
}

/// The problem for a member of the body with an invalid value.
pub(super) fn invalid_member(member: &'static str, reason: &impl Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(format!("{member} {reason}.")).with("field", member)
}

/// The problem while the cluster is not reachable yet.
pub(super) fn no_cluster() -> Problem {
    unavailable().detail("The coordinator has not reached the Redis Cluster yet.")
}

fn unavailable() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER)
}

fn different(fields: &[Field]) -> Problem {
    let fields: Vec<Value> = fields.iter().map(|field| field.member().into()).collect();
    Problem::new(StatusCode::CONFLICT).of_kind(DIFFERENT).with("fields", fields)
}

fn invalid_sale(invalid: &InvalidSale) -> Problem {
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY).of_kind(INVALID).detail(sentence(invalid));
    problem.with("field", Field::of(invalid).member())
}

fn refused(refusal: &ChangeError) -> Problem {
    let refused = |status| Problem::new(status).of_kind(REFUSED).detail(sentence(refusal));
    match refusal {
        ChangeError::NoUnits | ChangeError::Invalid(InvalidSale::TotalStock) => {
            refused(StatusCode::UNPROCESSABLE_ENTITY).with("field", "units")
        }
        ChangeError::Invalid(invalid) => invalid_sale(invalid),
        _ => refused(StatusCode::CONFLICT),
    }
}

fn unconfirmed(shards: &[UnconfirmedShard]) -> Problem {
    let ids: Vec<usize> = shards.iter().map(|unconfirmed| unconfirmed.shard.index()).collect();
    let detail = "It is applied as soon as these shards answer. Repeating the request is harmless.";
    unavailable().of_kind(UNCONFIRMED).detail(detail).with("shards", ids)
}

fn logged(failure: &OperationError, problem: Problem) -> Problem {
    tracing::warn!(error = %failure, "an operator's request failed");
    problem
}

fn sentence(text: &impl Display) -> String {
    let text = text.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(chars).chain(['.']).collect()
}
