//! What operations have in common, and the one that gives this description.

use axum::Json;
use axum::http::StatusCode;
use service::edge;
use service::json;
use service::problem::Problem;
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Required};

use super::answers::Answers;
use super::parameters::{correlation_id, reference};
use super::schemas::Document;
use super::{BEARER, by_sale, samples, single_sale};
use crate::http::problems::{
    invalid_idempotency_key, order_not_found, other_user, too_many_requests, unauthenticated, unavailable,
    unknown_outcome, unknown_sale,
};

pub(super) const TAG: &str = "description";

/// What is said of a purchase in both families.
pub(super) const OF_PURCHASE: &str = "\
One unit for one user, once. `200` is said only when the replicas have it, too. Without an `Idempotency-Key` every \
request is an attempt of its own. After a 503 the same attempt can be made again; where the outcome is unknown, \
only with the same `Idempotency-Key` is it told from a second purchase.";
pub(super) const INVALID_USER_ID: &str = "There can be no such user id";
/// The user id that a purchase was made with.
pub(super) const BUYER: &str = "$request.body#/userId";

/// A path and what can be done there.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) item: PathItem,
}

/// Every operation of the public port.
pub(super) fn all() -> Vec<Entry> {
    by_sale::all().chain(single_sale::all()).chain([itself()]).collect()
}

fn itself() -> Entry {
    let sample = Json(serde_json::json!({ "openapi": "3.1.0" }));
    let answers = Answers::default().answer::<Document>("This document", sample);
    entry("/api/openapi.json", HttpMethod::Get, operation(TAG, "description", "This document", answers))
}

/// What any operation has, besides what is its own.
pub(super) fn operation(tag: &str, id: &str, summary: &str, answers: Answers) -> OperationBuilder {
    let answers = answers.problems([too_many_requests(samples::limited()), edge::timed_out()]);
    OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(id))
        .summary(Some(summary))
        .parameter(correlation_id())
        .responses(answers)
}

/// What may become of any purchase, in the words that both families share.
pub(super) fn of_purchases() -> [Problem; 9] {
    [
        unknown_sale(),
        json::no_object(),
        invalid_idempotency_key(),
        unauthenticated(None),
        other_user(),
        json::too_slow(),
        json::too_long(),
        json::unsupported(),
        unknown_outcome(samples::order()),
    ]
}

/// What may become of any lookup, in the words that both families share. A path that HTTP or nginx cannot bear gets no
/// further than there.
pub(super) fn of_lookups() -> [Problem; 5] {
    let bad_path = Problem::new(StatusCode::BAD_REQUEST);
    [bad_path, unknown_sale(), order_not_found(), unauthenticated(None), unavailable()]
}

/// With AUTH=jwt a token says who asks; without it none is looked at.
pub(super) fn authenticated(operation: OperationBuilder) -> OperationBuilder {
    let no_scopes: [&str; 0] = [];
    operation.security(SecurityRequirement::default()).security(SecurityRequirement::new(BEARER, no_scopes))
}

pub(super) fn body<T: ToSchema>() -> RequestBody {
    let content = ContentBuilder::new().schema(Some(reference::<T>()));
    RequestBodyBuilder::new()
        .description(Some("Further members are ignored."))
        .content("application/json", content.example(Some(serde_json::json!({ "userId": "ada" }))).build())
        .required(Some(Required::True))
        .build()
}

pub(super) fn entry(path: &str, method: HttpMethod, operation: OperationBuilder) -> Entry {
    Entry { path: path.to_owned(), item: PathItem::new(method, operation) }
}
