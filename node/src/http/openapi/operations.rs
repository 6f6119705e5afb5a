//! What can be asked, one function a handler.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use service::edge;
use service::json;
use service::problem::Problem;
use stock::ids::InvalidId;
use utoipa::ToSchema;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Required};

use super::super::problems::{
    busy, for_somebody_else, foreign_request, invalid_idempotency_key, nothing_of_yours, too_many_listeners,
    too_many_requests, unauthenticated, unavailable, unknown_outcome, unknown_sale,
};
use super::super::{by_sale, csrf, events, single_sale};
use super::answers::Answers;
use super::parameters::{
    correlation_id, csrf_token, idempotency_key, optional_csrf_token, reference, sale, user,
};
use super::schemas::{Document, Event, LongUserId, Purchase, SingleSalePurchase, UserId};
use super::{BEARER, samples};
use crate::csrf::BadToken;
use crate::sales::Phase;

pub(super) const BY_SALE: &str = "by sale";
pub(super) const SINGLE_SALE: &str = "single sale";
pub(super) const SELF: &str = "description";

const OF_PURCHASE: &str = "\
One unit for one user, once. `200` is said only when the replicas have it, too. Without an `Idempotency-Key` every \
request is an attempt of its own. After a 503 the same attempt can be made again; where the outcome is unknown, \
only with the same `Idempotency-Key` is it told from a second purchase.";
const INVALID_USER_ID: &str = "There can be no such user id";
/// The user id that a purchase was made with.
const BUYER: &str = "$request.body#/userId";

/// A path and what can be done there.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) item: PathItem,
}

/// Every operation of the public port.
pub(super) fn all() -> Vec<Entry> {
    let by_sale = [Which::Named, Which::Default].into_iter().flat_map(of_by_sale_clients);
    by_sale.chain(of_single_sale_clients()).chain([itself()]).collect()
}

/// The two ways to say which sale is meant.
#[derive(Clone, Copy)]
enum Which {
    Named,
    Default,
}

impl Which {
    fn entry(self, tail: &str, method: HttpMethod, operation: OperationBuilder) -> Entry {
        match self {
            Self::Named => entry(&format!("/api/sales/{{sale}}/{tail}"), method, operation.parameter(sale())),
            Self::Default => entry(&format!("/api/sale/{tail}"), method, operation),
        }
    }

    fn id(self, does: &str) -> String {
        match self {
            Self::Named => format!("{does}OfSale"),
            Self::Default => format!("{does}OfDefaultSale"),
        }
    }

    /// Something else about the same sale.
    fn same_sale(self, does: &str) -> LinkBuilder {
        let link = Link::builder().operation_id(self.id(does));
        match self {
            Self::Named => link.parameter("sale", "$request.path.sale"),
            Self::Default => link,
        }
    }
}

fn of_by_sale_clients(which: Which) -> [Entry; 4] {
    [by_sale_status(which), by_sale_purchase(which), by_sale_find(which), by_sale_events(which)]
}

fn by_sale_status(which: Which) -> Entry {
    let answers = Answers::default()
        .answer::<by_sale::StatusBody>("The sale", Json(by_sale::StatusBody::of(&samples::status())))
        .problems([unknown_sale(), unavailable()]);
    let answers = match which {
        Which::Named => answers,
        Which::Default => {
            answers.link(200, "byItsId", by_id("status")).link(200, "buyByItsId", by_id("purchase"))
        }
    };
    let operation = operation(BY_SALE, &which.id("status"), "The sale as everybody sees it", answers).description(
        Some("From memory, at most a fraction of a second old. A sold-out sale is `active` with `soldOut` until its window closes."),
    );
    which.entry("status", HttpMethod::Get, operation)
}

/// The sale of this answer by its id.
fn by_id(does: &str) -> Link {
    let link =
        Link::builder().operation_id(Which::Named.id(does)).parameter("sale", "$response.body#/saleId");
    link.build()
}

fn by_sale_purchase(which: Which) -> Entry {
    let foreign = foreign_request(BadToken::Missing, samples::CSRF_TOKEN.into());
    let answers = Answers::default()
        .answer::<by_sale::Purchased>("A unit is the buyer's", Json(by_sale::Purchased::of(samples::claim())))
        .told_by::<by_sale::Refused>(
            "reason",
            "The buyer has a unit already",
            by_sale::Refused::already_purchased(samples::claim()),
        )
        .told_by::<by_sale::Refused>("reason", "Every unit is sold", by_sale::Refused::out_of_stock())
        .told_by::<by_sale::Refused>(
            "reason",
            "The sale is not active",
            by_sale::Refused::not_active(Phase::Upcoming),
        )
        .told_by::<by_sale::Refused>(
            "reason",
            INVALID_USER_ID,
            by_sale::Refused::invalid_user_id(&InvalidId::Empty),
        )
        .problems([foreign.header(SET_COOKIE, samples::csrf_cookie())])
        .problems(of_purchases())
        .problems([busy(), unavailable()]);
    let answers = answers.link(200, "lookUp", which.same_sale("find").parameter("userId", BUYER).build());
    let operation = operation(BY_SALE, &which.id("purchase"), "Buy one unit", answers)
        .description(Some(OF_PURCHASE))
        .parameter(idempotency_key())
        .parameters(Some(optional_csrf_token()))
        .request_body(Some(body::<Purchase>()));
    which.entry("purchase", HttpMethod::Post, authenticated(operation))
}

fn by_sale_find(which: Which) -> Entry {
    let answers = Answers::default()
        .answer::<by_sale::Found>("A unit is the user's", Json(by_sale::Found::of(Some(samples::claim()))))
        .answer::<by_sale::Found>("None is", Json(by_sale::Found::of(None)))
        .told_by::<by_sale::Refused>(
            "reason",
            INVALID_USER_ID,
            by_sale::Refused::invalid_user_id(&InvalidId::Empty),
        )
        .problems(of_lookups());
    let operation = operation(BY_SALE, &which.id("find"), "Look a purchase up", answers)
        .description(Some("Asks the user's home shard."))
        .parameter(user::<UserId>());
    which.entry("purchase/{userId}", HttpMethod::Get, authenticated(operation))
}

fn by_sale_events(which: Which) -> Entry {
    let event = events::event(&by_sale::StatusBody::of(&samples::status()));
    let answers = Answers::default()
        .answer::<Event>("The status, whenever it changes", events::stream_of(event.into()))
        .problems([unknown_sale(), unavailable(), too_many_listeners()]);
    let operation = operation(BY_SALE, &which.id("events"), "Listen to the sale", answers).description(Some(
        "Server-sent events of the type `status`, each with what `GET status` answers: one at once, then one a change, at \
         most five a second; a comment where there was none for 10 seconds.",
    ));
    which.entry("events", HttpMethod::Get, operation)
}

fn of_single_sale_clients() -> [Entry; 4] {
    [single_sale_status(), csrf_issue(), single_sale_purchase(), single_sale_find()]
}

fn single_sale_status() -> Entry {
    let answers = Answers::default()
        .answer::<single_sale::StatusBody>("The sale", Json(single_sale::StatusBody::of(&samples::status())))
        .problems([unknown_sale(), unavailable()]);
    let operation = operation(SINGLE_SALE, "status", "The sale as everybody sees it", answers).description(
        Some("From memory, at most a fraction of a second old. A paused sale is `upcoming` here."),
    );
    entry("/api/status", HttpMethod::Get, operation)
}

fn csrf_issue() -> Entry {
    let token = "$response.body#/csrfToken";
    let purchase = Link::builder()
        .operation_id("purchase")
        .parameter("header.X-CSRF-Token", token)
        .parameter("cookie.csrfToken", token);
    let issued = csrf::Issued::new(samples::CSRF_TOKEN.into(), samples::csrf_cookie());
    let answers = Answers::default()
        .answer::<csrf::Issued>("A token, in the body and as a cookie", issued)
        .link(200, "buy", purchase.build());
    entry("/api/csrf", HttpMethod::Get, operation(SINGLE_SALE, "csrf", "A CSRF token", answers))
}

fn single_sale_purchase() -> Entry {
    use crate::sales::Outcome::{AlreadyPurchased, Busy, NotActive, OutOfStock, Purchased};
    let told = |answers: Answers, (words, outcome)| {
        answers.told_by::<single_sale::Settled>("status", words, single_sale::PurchaseAnswer::to(outcome))
    };
    let settled = [
        ("A unit is the buyer's", Purchased(samples::claim())),
        ("The buyer has a unit already", AlreadyPurchased(samples::claim())),
        ("Every unit is sold", OutOfStock),
        ("The sale is not active", NotActive(Phase::Upcoming)),
    ];
    let without_token =
        csrf::WithoutToken::new(BadToken::Missing, samples::CSRF_TOKEN.into(), samples::csrf_cookie());
    let found = Link::builder().operation_id("find").parameter("userId", BUYER);
    let answers = settled
        .into_iter()
        .fold(Answers::default(), told)
        .answer::<single_sale::Busy>("Too many are waiting", single_sale::PurchaseAnswer::to(Busy))
        .answer::<single_sale::InvalidUser>(INVALID_USER_ID, single_sale::InvalidUser::default())
        .answer::<csrf::WithoutToken>("No token, or none that is good; here is a new one", without_token)
        .problems(of_purchases())
        .link(200, "lookUp", found.build());
    let operation = operation(SINGLE_SALE, "purchase", "Buy one unit", answers)
        .description(Some(OF_PURCHASE))
        .parameter(idempotency_key())
        .parameters(Some(csrf_token()))
        .request_body(Some(body::<SingleSalePurchase>()));
    entry("/api/purchase", HttpMethod::Post, authenticated(operation))
}

fn single_sale_find() -> Entry {
    let answers = Answers::default()
        .answer::<single_sale::Found>(
            "A unit is the user's",
            Json(single_sale::Found::of(Some(samples::claim()))),
        )
        .answer::<single_sale::Found>("None is", Json(single_sale::Found::of(None)))
        .answer::<single_sale::InvalidUser>(INVALID_USER_ID, single_sale::InvalidUser::default())
        .problems(of_lookups());
    let operation = operation(SINGLE_SALE, "find", "Look a purchase up", answers)
        .description(Some("Asks the user's home shard."))
        .parameter(user::<LongUserId>());
    entry("/api/purchase/{userId}", HttpMethod::Get, authenticated(operation))
}

fn itself() -> Entry {
    let sample = Json(serde_json::json!({ "openapi": "3.1.0" }));
    let answers = Answers::default().answer::<Document>("This document", sample);
    entry("/api/openapi.json", HttpMethod::Get, operation(SELF, "description", "This document", answers))
}

/// What any operation has, besides what is its own.
fn operation(tag: &str, id: &str, summary: &str, answers: Answers) -> OperationBuilder {
    let answers = answers.problems([too_many_requests(samples::too_many()), edge::out_of_time()]);
    OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(id))
        .summary(Some(summary))
        .parameter(correlation_id())
        .responses(answers)
}

/// What may become of any purchase, in the words that both families share.
fn of_purchases() -> [Problem; 9] {
    [
        unknown_sale(),
        json::no_object(),
        invalid_idempotency_key(),
        unauthenticated(None),
        for_somebody_else(),
        json::too_slow(),
        json::too_long(),
        json::unsupported(),
        unknown_outcome(samples::order()),
    ]
}

/// What may become of any lookup, in the words that both families share. A path that HTTP or nginx cannot bear gets no
/// further than there.
fn of_lookups() -> [Problem; 5] {
    let bad_path = Problem::new(StatusCode::BAD_REQUEST);
    [bad_path, unknown_sale(), nothing_of_yours(), unauthenticated(None), unavailable()]
}

/// With AUTH=jwt a token says who asks; without it none is looked at.
fn authenticated(operation: OperationBuilder) -> OperationBuilder {
    let no_scopes: [&str; 0] = [];
    operation.security(SecurityRequirement::default()).security(SecurityRequirement::new(BEARER, no_scopes))
}

fn body<T: ToSchema>() -> RequestBody {
    let content = ContentBuilder::new().schema(Some(reference::<T>()));
    RequestBodyBuilder::new()
        .description(Some("Further members are ignored."))
        .content("application/json", content.example(Some(serde_json::json!({ "userId": "ada" }))).build())
        .required(Some(Required::True))
        .build()
}

fn entry(path: &str, method: HttpMethod, operation: OperationBuilder) -> Entry {
    Entry { path: path.to_owned(), item: PathItem::new(method, operation) }
}
