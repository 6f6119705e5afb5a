//! The API's own description: an OpenAPI document.
//!
//! `router.rs` lists the operations and each handler describes its own. Responses come from samples that pass through
//! the same code as a response to a buyer: status, headers, media type and example are written nowhere else. This module
//! adds to each operation what all of them have.

mod answers;
mod headers;
mod parameters;
pub(super) mod samples;
pub(super) mod schemas;

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr, Response};
use utoipa::{IntoParams, IntoResponses};

pub(super) use answers::{Answers, INVALID_USER_ID};
pub(super) use parameters::{IdempotencyKey, OptionalCsrfCookie, OptionalCsrfHeader};

use super::{by_sale, csrf, single_sale};

/// Responses of an operation, by status.
pub(super) type Responses = BTreeMap<String, RefOr<Response>>;

pub(crate) const PATH: &str = "/api/openapi.json";

const ABOUT: &str = "\
A flash sale: a fixed stock for a crowd that arrives in the same second. No unit is sold twice, no user gets more than \
one, and every answer stays true.\n\n\
Two families of endpoints serve the same sales: a unit bought through one is visible in the other. \
Errors without a format of the family's own are `application/problem+json` (RFC 9457). \
Every response has an `X-Correlation-Id`, and every problem repeats it as `correlationId`. \
A 503 means that no purchase is known to have been made: retry after `Retry-After`. \
An unsupported method is answered with 405 and `Allow`. Bodies are limited to 16 KiB.";
/// Description of a purchase, for both families.
pub(super) const PURCHASE: &str = "\
Buys one unit for one user, once. The response is `200` only when the replicas have the purchase too. Without an \
`Idempotency-Key` every request is a new attempt. After a 503 the attempt can be repeated. When its outcome is unknown, \
the same `Idempotency-Key` is needed: with another one, a purchase that was made is answered like a second purchase.";

/// A parameter of a linked operation, and where its value comes from.
type Source = (&'static str, &'static str);

const SALE: Source = ("sale", "$response.body#/saleId");
const SAME_SALE: Source = ("sale", "$request.path.sale");
const BUYER: Source = ("userId", "$request.body#/userId");
const TOKEN: &str = "$response.body#/csrfToken";

/// Operations that may follow a response 200: an operation, the name of the link, the next operation and its parameters.
const LINKS: [(&str, &str, &str, &[Source]); 6] = [
    ("statusOfDefaultSale", "byItsId", "statusOfSale", &[SALE]),
    ("statusOfDefaultSale", "buyByItsId", "purchaseOfSale", &[SALE]),
    ("purchaseOfDefaultSale", "lookUp", "findOfDefaultSale", &[BUYER]),
    ("purchaseOfSale", "lookUp", "findOfSale", &[SAME_SALE, BUYER]),
    ("purchase", "lookUp", "find", &[BUYER]),
    ("csrf", "buy", "purchase", &[("header.X-CSRF-Token", TOKEN), ("cookie.csrfToken", TOKEN)]),
];

/// The description without the operations that `router.rs` lists.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Flash sale", description = ABOUT),
    paths(document),
    components(schemas(
        by_sale::StatusBody, by_sale::Purchased, by_sale::Refused, by_sale::LookupBody,
        single_sale::StatusBody, single_sale::PurchaseResult, single_sale::Busy, single_sale::InvalidUser,
        single_sale::LookupBody, csrf::IssuedToken, csrf::MissingCsrfToken,
        schemas::Problem, schemas::Event, schemas::Document, schemas::SaleId,
    )),
    tags(
        (name = by_sale::TAG, description = "For clients that know several sales. The path names a sale or means the default one."),
        (name = single_sale::TAG, description = "For clients that know a single sale: the default one."),
        (name = "description", description = "This document."),
    ),
)]
pub(crate) struct Description;

/// Returns the route of the description of these operations.
pub(crate) fn router(operations: OpenApi) -> Router {
    let json = serde_json::to_vec(&complete(operations)).expect("a description has only plain members");
    Router::new().route(PATH, get(document)).with_state(Bytes::from(json))
}

/// This document.
#[utoipa::path(get, path = PATH, operation_id = "description", tag = "description", responses(schemas::Document))]
async fn document(State(json): State<Bytes>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], json)
}

impl IntoResponses for schemas::Document {
    fn responses() -> Responses {
        let sample = Json(serde_json::json!({ "openapi": "3.1.0" }));
        Answers::default().answer::<Self>("This document", sample).into()
    }
}

/// Adds what all operations have, and what depends on the way to select a sale.
fn complete(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        let mut parameters = parameters::CorrelationId::into_params(|| None);
        let suffix = if path.starts_with("/api/sales/") {
            parameters.extend(parameters::Sale::into_params(|| None));
            "OfSale"
        } else if path.starts_with("/api/sale/") {
            "OfDefaultSale"
        } else {
            ""
        };
        for operation in item.get.iter_mut().chain(&mut item.post) {
            complete_operation(operation, suffix, &parameters);
        }
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "Only with AUTH=jwt: the token's `sub` is the user, and requests for other users are refused.",
    ));
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    components.headers.extend(headers::all().map(|(name, header)| (name.to_owned(), header.into())));
    api
}

fn complete_operation(operation: &mut Operation, suffix: &str, parameters: &[Parameter]) {
    let id = operation.operation_id.get_or_insert_default();
    id.push_str(suffix);
    operation.parameters.get_or_insert_default().extend(parameters.iter().cloned().map(RefOr::T));
    let Some(RefOr::T(success)) = operation.responses.responses.get_mut("200") else { return };
    for (_, name, next, sources) in LINKS.iter().filter(|(from, ..)| from == id) {
        let link = Link::builder().operation_id(*next);
        let link = sources.iter().fold(link, |link, (parameter, source)| link.parameter(*parameter, *source));
        success.links.insert((*name).to_owned(), link.build().into());
    }
}

#[cfg(test)]
mod tests;
