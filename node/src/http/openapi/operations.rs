//! Parts that operations share, and the operation that returns this description.

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

/// Description of a purchase, for both families.
pub(super) const PURCHASE_DESCRIPTION: &str = "\
Buys one unit for one user, once. The response is `200` only when the replicas have the purchase too. Without an \
`Idempotency-Key` every request is a new attempt. After a 503 the attempt can be repeated. When its outcome is unknown, \
the same `Idempotency-Key` is needed: with another one, a purchase that was made is answered like a second purchase.";
pub(super) const INVALID_USER_ID: &str = "The user id is invalid";
/// Link expression for the user id of a purchase.
pub(super) const BUYER_EXPRESSION: &str = "$request.body#/userId";

/// A path and its operations.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) item: PathItem,
}

/// Returns every operation of the public port.
pub(super) fn all() -> Vec<Entry> {
    by_sale::all().chain(single_sale::all()).chain([description()]).collect()
}

fn description() -> Entry {
    let sample = Json(serde_json::json!({ "openapi": "3.1.0" }));
    let answers = Answers::default().answer::<Document>("This document", sample);
    entry("/api/openapi.json", HttpMethod::Get, operation(TAG, "description", "This document", answers))
}

/// Starts an operation with the parts that all operations have.
pub(super) fn operation(tag: &str, id: &str, summary: &str, answers: Answers) -> OperationBuilder {
    let answers = answers.problems([too_many_requests(samples::limited()), edge::timed_out()]);
    OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(id))
        .summary(Some(summary))
        .parameter(correlation_id())
        .responses(answers)
}

/// Returns the problems of a purchase that both families share.
pub(super) fn purchase_problems() -> [Problem; 9] {
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

/// Returns the problems of a lookup that both families share. The plain 400 is for paths that HTTP or nginx rejects.
pub(super) fn lookup_problems() -> [Problem; 5] {
    let bad_path = Problem::new(StatusCode::BAD_REQUEST);
    [bad_path, unknown_sale(), order_not_found(), unauthenticated(None), unavailable()]
}

/// Allows a bearer token. With AUTH=jwt it is required; otherwise it is ignored.
pub(super) fn authenticated(operation: OperationBuilder) -> OperationBuilder {
    let no_scopes: [&str; 0] = [];
    operation.security(SecurityRequirement::default()).security(SecurityRequirement::new(BEARER, no_scopes))
}

pub(super) fn body<T: ToSchema>() -> RequestBody {
    let content = ContentBuilder::new().schema(Some(reference::<T>()));
    RequestBodyBuilder::new()
        .description(Some("Other members are ignored."))
        .content("application/json", content.example(Some(serde_json::json!({ "userId": "ada" }))).build())
        .required(Some(Required::True))
        .build()
}

pub(super) fn entry(path: &str, method: HttpMethod, operation: OperationBuilder) -> Entry {
    Entry { path: path.to_owned(), item: PathItem::new(method, operation) }
}
