//! Operations for clients that know several sales. The path names a sale or means the default one.

use axum::Json;
use axum::http::header::SET_COOKIE;
use service::events::stream_of;
use stock::ids::InvalidId;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder};

use super::answers::Answers;
use super::operations::{
    BUYER_EXPRESSION, Entry, INVALID_USER_ID, PURCHASE_DESCRIPTION, authenticated, body, entry,
    lookup_problems, operation, purchase_problems,
};
use super::parameters::{idempotency_key, optional_csrf_token, sale, user};
use super::samples;
use super::schemas::{Event, Purchase, UserId};
use crate::csrf::BadToken;
use crate::http::by_sale::{LookupBody, PurchaseAnswer, Purchased, Refused, StatusBody};
use crate::http::events::event;
use crate::http::problems::{busy, csrf_rejected, too_many_listeners, unavailable, unknown_sale};
use crate::sales::Outcome::{self, AlreadyPurchased, NotActive, OutOfStock};
use crate::sales::Phase;

pub(super) const TAG: &str = "by sale";

/// Returns all operations, for a named sale and for the default one.
pub(super) fn all() -> impl Iterator<Item = Entry> {
    [SaleSelector::ById, SaleSelector::Default].into_iter().flat_map(of)
}

/// Two ways to select a sale.
#[derive(Clone, Copy)]
enum SaleSelector {
    ById,
    Default,
}

impl SaleSelector {
    fn entry(self, tail: &str, method: HttpMethod, operation: OperationBuilder) -> Entry {
        match self {
            Self::ById => entry(&format!("/api/sales/{{sale}}/{tail}"), method, operation.parameter(sale())),
            Self::Default => entry(&format!("/api/sale/{tail}"), method, operation),
        }
    }

    fn id(self, operation: &str) -> String {
        match self {
            Self::ById => format!("{operation}OfSale"),
            Self::Default => format!("{operation}OfDefaultSale"),
        }
    }

    /// Starts a link to another operation on the same sale.
    fn same_sale(self, operation: &str) -> LinkBuilder {
        let link = Link::builder().operation_id(self.id(operation));
        match self {
            Self::ById => link.parameter("sale", "$request.path.sale"),
            Self::Default => link,
        }
    }
}

fn of(selector: SaleSelector) -> [Entry; 4] {
    [status(selector), purchase(selector), find(selector), events(selector)]
}

fn status(selector: SaleSelector) -> Entry {
    let answers = Answers::default()
        .answer::<StatusBody>("The sale", Json(StatusBody::of(&samples::status())))
        .problems([unknown_sale(), unavailable()]);
    let answers = match selector {
        SaleSelector::ById => answers,
        SaleSelector::Default => {
            answers.link(200, "byItsId", by_id("status")).link(200, "buyByItsId", by_id("purchase"))
        }
    };
    let operation = operation(TAG, &selector.id("status"), "Status of the sale", answers).description(
        Some("From memory, at most a fraction of a second old. A sold-out sale stays `active`, with `soldOut`, until its window closes."),
    );
    selector.entry("status", HttpMethod::Get, operation)
}

/// Links to an operation on the sale in the response, by its id.
fn by_id(operation: &str) -> Link {
    let link = Link::builder()
        .operation_id(SaleSelector::ById.id(operation))
        .parameter("sale", "$response.body#/saleId");
    link.build()
}

fn purchase(selector: SaleSelector) -> Entry {
    let add_outcome = |answers: Answers, (summary, outcome)| {
        answers.answer_by_member::<Refused>("reason", summary, PurchaseAnswer::to(outcome))
    };
    let refused = [
        ("The buyer had a unit already", AlreadyPurchased(samples::claim())),
        ("Every unit is sold", OutOfStock),
        ("The sale is not active", NotActive(Phase::Upcoming)),
    ];
    let foreign = csrf_rejected(BadToken::Missing, samples::CSRF_TOKEN.into());
    let answers = Answers::default().answer::<Purchased>(
        "The buyer has a unit",
        PurchaseAnswer::to(Outcome::Purchased(samples::claim())),
    );
    let answers = refused
        .into_iter()
        .fold(answers, add_outcome)
        .answer_by_member::<Refused>("reason", INVALID_USER_ID, Refused::invalid_user_id(&InvalidId::Empty))
        .problems([foreign.header(SET_COOKIE, samples::csrf_cookie())])
        .problems(purchase_problems())
        .problems([busy(), unavailable()]);
    let answers =
        answers.link(200, "lookUp", selector.same_sale("find").parameter("userId", BUYER_EXPRESSION).build());
    let operation = operation(TAG, &selector.id("purchase"), "Buy one unit", answers)
        .description(Some(PURCHASE_DESCRIPTION))
        .parameter(idempotency_key())
        .parameters(Some(optional_csrf_token()))
        .request_body(Some(body::<Purchase>()));
    selector.entry("purchase", HttpMethod::Post, authenticated(operation))
}

fn find(selector: SaleSelector) -> Entry {
    let answers = Answers::default()
        .answer::<LookupBody>("The user has a unit", Json(LookupBody::of(Some(samples::claim()))))
        .answer::<LookupBody>("The user has none", Json(LookupBody::of(None)))
        .answer_by_member::<Refused>("reason", INVALID_USER_ID, Refused::invalid_user_id(&InvalidId::Empty))
        .problems(lookup_problems());
    let operation = operation(TAG, &selector.id("find"), "Look up a purchase", answers)
        .description(Some("Asks the user's home shard."))
        .parameter(user::<UserId>());
    selector.entry("purchase/{userId}", HttpMethod::Get, authenticated(operation))
}

fn events(selector: SaleSelector) -> Entry {
    let sample = event(&StatusBody::of(&samples::status()));
    let answers = Answers::default()
        .answer::<Event>("The status, sent whenever it changes", stream_of(sample.into()))
        .problems([unknown_sale(), unavailable(), too_many_listeners()]);
    let operation = operation(TAG, &selector.id("events"), "Stream the status of the sale", answers).description(Some(
        "Server-sent events of the type `status`, each with the response of `GET status`: one at once, then one for each \
         change, at most five a second. After 10 seconds without an event a comment is sent.",
    ));
    selector.entry("events", HttpMethod::Get, operation)
}
