//! What operators are told when something was not done. The log has the rest.

use std::fmt::Display;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use service::problem::{Kind, Problem};
use stock::sale::InvalidSale;

use crate::carry_out::Unconfirmed;
use crate::change::Refusal;
use crate::coordinator::Failure;
use crate::new_sale::Field;

/// When to repeat what a failover or another operator was in the way of.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const NO_SALE: Kind = Kind { uri: "/problems/no-sale", title: "No such sale" };
const DIFFERENT: Kind =
    Kind { uri: "/problems/different-settings", title: "The sale exists with other settings" };
const RECORD_LOST: Kind = Kind { uri: "/problems/record-lost", title: "The sale's record is lost" };
const INVALID: Kind = Kind { uri: "/problems/invalid-sale", title: "No sale can be like that" };
const REFUSED: Kind = Kind { uri: "/problems/refused", title: "The sale cannot be changed like that" };
const UNRECORDED: Kind = Kind { uri: "/problems/unknown-outcome", title: "It may or may not be recorded" };
const UNCONFIRMED: Kind =
    Kind { uri: "/problems/unconfirmed", title: "Recorded, but not confirmed by every shard" };

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::NoSale(_) => {
                Self::new(StatusCode::NOT_FOUND).of_kind(NO_SALE).detail(sentence(&failure))
            }
            Failure::RecordLost(_) => logged(
                &failure,
                Self::new(StatusCode::CONFLICT).of_kind(RECORD_LOST).detail(sentence(&failure)),
            ),
            Failure::Different { fields, .. } => different(fields).detail(sentence(&failure)),
            Failure::Invalid(invalid) => invalid_sale(invalid),
            Failure::Refused(refusal) => refused(refusal),
            Failure::Contended | Failure::NoPlace(_) | Failure::AuditBusy | Failure::ListLost => {
                unavailable().detail(sentence(&failure))
            }
            Failure::Unread(_) | Failure::Unaudited(_) => {
                logged(&failure, unavailable().detail("The sale cannot be read now. Repeat the request."))
            }
            Failure::Unrecorded(_) => {
                let detail = "Repeat the request; a restock only with the same Idempotency-Key.";
                logged(&failure, unavailable().of_kind(UNRECORDED).detail(detail))
            }
            Failure::Unconfirmed(shards) => logged(&failure, unconfirmed(shards)),
        }
    }
}

/// A member of the body that says nothing this API understands.
pub(super) fn invalid_member(member: &'static str, reason: &impl Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(format!("{member} {reason}.")).with("field", member)
}

/// The cluster is not there yet.
pub(super) fn no_cluster() -> Problem {
    unavailable().detail("There is no Redis Cluster yet.")
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

fn refused(refusal: &Refusal) -> Problem {
    let refused = |status| Problem::new(status).of_kind(REFUSED).detail(sentence(refusal));
    match refusal {
        Refusal::Creating | Refusal::Ended | Refusal::KeyTaken(_) | Refusal::TooManyRestocks => {
            refused(StatusCode::CONFLICT)
        }
        Refusal::NoUnits => refused(StatusCode::UNPROCESSABLE_ENTITY).with("field", "units"),
        Refusal::Invalid(InvalidSale::TotalStock) => {
            refused(StatusCode::UNPROCESSABLE_ENTITY).with("field", "units")
        }
        Refusal::Invalid(invalid) => invalid_sale(invalid),
    }
}

fn unconfirmed(shards: &[Unconfirmed]) -> Problem {
    let ids: Vec<usize> = shards.iter().map(|unconfirmed| unconfirmed.shard.index()).collect();
    let detail = "It will be done as soon as these shards answer. Repeating the request is harmless.";
    unavailable().of_kind(UNCONFIRMED).detail(detail).with("shards", ids)
}

fn logged(failure: &Failure, problem: Problem) -> Problem {
    tracing::warn!(error = %failure, "an operator's request failed");
    problem
}

fn sentence(text: &impl Display) -> String {
    let text = text.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(chars).chain(['.']).collect()
}
