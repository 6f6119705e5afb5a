//! Operations for clients that know a single sale: the default one.

use axum::Json;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::HttpMethod;

use super::answers::Answers;
use super::operations::{
    BUYER_EXPRESSION, Entry, INVALID_USER_ID, PURCHASE_DESCRIPTION, authenticated, body, entry,
    lookup_problems, operation, purchase_problems,
};
use super::parameters::{self, idempotency_key, user};
use super::samples;
use super::schemas::{LongUserId, SingleSalePurchase};
use crate::csrf::BadToken;
use crate::http::csrf::{IssuedToken, MissingCsrfToken};
use crate::http::problems::{unavailable, unknown_sale};
use crate::http::single_sale::{Busy, InvalidUser, LookupBody, PurchaseAnswer, PurchaseResult, StatusBody};
use crate::sales::Outcome::{self, AlreadyPurchased, NotActive, OutOfStock, Purchased};
use crate::sales::Phase;

pub(super) const TAG: &str = "single sale";

/// Returns all operations.
pub(super) fn all() -> [Entry; 4] {
    [status(), csrf_token(), purchase(), find()]
}

fn status() -> Entry {
    let answers = Answers::default()
        .answer::<StatusBody>("The sale", Json(StatusBody::of(&samples::status())))
        .problems([unknown_sale(), unavailable()]);
    let operation = operation(TAG, "status", "Status of the sale", answers).description(Some(
        "From memory, at most a fraction of a second old. A paused sale is `upcoming` here.",
    ));
    entry("/api/status", HttpMethod::Get, operation)
}

fn csrf_token() -> Entry {
    let token = "$response.body#/csrfToken";
    let purchase = Link::builder()
        .operation_id("purchase")
        .parameter("header.X-CSRF-Token", token)
        .parameter("cookie.csrfToken", token);
    let issued = IssuedToken::new(samples::CSRF_TOKEN.into(), samples::csrf_cookie());
    let answers = Answers::default()
        .answer::<IssuedToken>("A token, in the body and as a cookie", issued)
        .link(200, "buy", purchase.build());
    entry("/api/csrf", HttpMethod::Get, operation(TAG, "csrf", "A CSRF token", answers))
}

fn purchase() -> Entry {
    let add_outcome = |answers: Answers, (summary, outcome)| {
        answers.answer_by_member::<PurchaseResult>("status", summary, PurchaseAnswer::to(outcome))
    };
    let settled = [
        ("The buyer has a unit", Purchased(samples::claim())),
        ("The buyer had a unit already", AlreadyPurchased(samples::claim())),
        ("Every unit is sold", OutOfStock),
        ("The sale is not active", NotActive(Phase::Upcoming)),
    ];
    let without_token =
        MissingCsrfToken::new(BadToken::Missing, samples::CSRF_TOKEN.into(), samples::csrf_cookie());
    let found = Link::builder().operation_id("find").parameter("userId", BUYER_EXPRESSION);
    let answers = settled
        .into_iter()
        .fold(Answers::default(), add_outcome)
        .answer::<Busy>("Too many buyers are waiting", PurchaseAnswer::to(Outcome::Busy))
        .answer::<InvalidUser>(INVALID_USER_ID, InvalidUser::default())
        .answer::<MissingCsrfToken>(
            "The token is missing or invalid; the response contains a new one",
            without_token,
        )
        .problems(purchase_problems())
        .link(200, "lookUp", found.build());
    let operation = operation(TAG, "purchase", "Buy one unit", answers)
        .description(Some(PURCHASE_DESCRIPTION))
        .parameter(idempotency_key())
        .parameters(Some(parameters::csrf_token()))
        .request_body(Some(body::<SingleSalePurchase>()));
    entry("/api/purchase", HttpMethod::Post, authenticated(operation))
}

fn find() -> Entry {
    let answers = Answers::default()
        .answer::<LookupBody>("The user has a unit", Json(LookupBody::of(Some(samples::claim()))))
        .answer::<LookupBody>("The user has none", Json(LookupBody::of(None)))
        .answer::<InvalidUser>(INVALID_USER_ID, InvalidUser::default())
        .problems(lookup_problems());
    let operation = operation(TAG, "find", "Look up a purchase", answers)
        .description(Some("Asks the user's home shard."))
        .parameter(user::<LongUserId>());
    entry("/api/purchase/{userId}", HttpMethod::Get, authenticated(operation))
}
