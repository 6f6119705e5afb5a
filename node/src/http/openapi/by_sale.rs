//! What can be asked by clients that say which sale they mean, or mean the default one.

use axum::Json;
use axum::http::header::SET_COOKIE;
use service::events::stream_of;
use stock::ids::InvalidId;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder};

use super::answers::Answers;
use super::operations::{
    BUYER, Entry, INVALID_USER_ID, OF_PURCHASE, authenticated, body, entry, of_lookups, of_purchases,
    operation,
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

/// Every operation, of a sale that is named and of the default one.
pub(super) fn all() -> impl Iterator<Item = Entry> {
    [SaleSelector::ById, SaleSelector::Default].into_iter().flat_map(of)
}

/// The two ways to say which sale is meant.
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

    fn id(self, does: &str) -> String {
        match self {
            Self::ById => format!("{does}OfSale"),
            Self::Default => format!("{does}OfDefaultSale"),
        }
    }

    /// Something else about the same sale.
    fn same_sale(self, does: &str) -> LinkBuilder {
        let link = Link::builder().operation_id(self.id(does));
        match self {
            Self::ById => link.parameter("sale", "$request.path.sale"),
            Self::Default => link,
        }
    }
}

fn of(which: SaleSelector) -> [Entry; 4] {
    [status(which), purchase(which), find(which), events(which)]
}

fn status(which: SaleSelector) -> Entry {
    let answers = Answers::default()
        .answer::<StatusBody>("The sale", Json(StatusBody::of(&samples::status())))
        .problems([unknown_sale(), unavailable()]);
    let answers = match which {
        SaleSelector::ById => answers,
        SaleSelector::Default => {
            answers.link(200, "byItsId", by_id("status")).link(200, "buyByItsId", by_id("purchase"))
        }
    };
    let operation = operation(TAG, &which.id("status"), "The sale as everybody sees it", answers).description(
        Some("From memory, at most a fraction of a second old. A sold-out sale is `active` with `soldOut` until its window closes."),
    );
    which.entry("status", HttpMethod::Get, operation)
}

/// The sale of this answer by its id.
fn by_id(does: &str) -> Link {
    let link =
        Link::builder().operation_id(SaleSelector::ById.id(does)).parameter("sale", "$response.body#/saleId");
    link.build()
}

fn purchase(which: SaleSelector) -> Entry {
    let add_outcome = |answers: Answers, (summary, outcome)| {
        answers.answer_by_member::<Refused>("reason", summary, PurchaseAnswer::to(outcome))
    };
    let refused = [
        ("The buyer has a unit already", AlreadyPurchased(samples::claim())),
        ("Every unit is sold", OutOfStock),
        ("The sale is not active", NotActive(Phase::Upcoming)),
    ];
    let foreign = csrf_rejected(BadToken::Missing, samples::CSRF_TOKEN.into());
    let answers = Answers::default().answer::<Purchased>(
        "A unit is the buyer's",
        PurchaseAnswer::to(Outcome::Purchased(samples::claim())),
    );
    let answers = refused
        .into_iter()
        .fold(answers, add_outcome)
        .answer_by_member::<Refused>("reason", INVALID_USER_ID, Refused::invalid_user_id(&InvalidId::Empty))
        .problems([foreign.header(SET_COOKIE, samples::csrf_cookie())])
        .problems(of_purchases())
        .problems([busy(), unavailable()]);
    let answers = answers.link(200, "lookUp", which.same_sale("find").parameter("userId", BUYER).build());
    let operation = operation(TAG, &which.id("purchase"), "Buy one unit", answers)
        .description(Some(OF_PURCHASE))
        .parameter(idempotency_key())
        .parameters(Some(optional_csrf_token()))
        .request_body(Some(body::<Purchase>()));
    which.entry("purchase", HttpMethod::Post, authenticated(operation))
}

fn find(which: SaleSelector) -> Entry {
    let answers = Answers::default()
        .answer::<LookupBody>("A unit is the user's", Json(LookupBody::of(Some(samples::claim()))))
        .answer::<LookupBody>("None is", Json(LookupBody::of(None)))
        .answer_by_member::<Refused>("reason", INVALID_USER_ID, Refused::invalid_user_id(&InvalidId::Empty))
        .problems(of_lookups());
    let operation = operation(TAG, &which.id("find"), "Look a purchase up", answers)
        .description(Some("Asks the user's home shard."))
        .parameter(user::<UserId>());
    which.entry("purchase/{userId}", HttpMethod::Get, authenticated(operation))
}

fn events(which: SaleSelector) -> Entry {
    let sample = event(&StatusBody::of(&samples::status()));
    let answers = Answers::default()
        .answer::<Event>("The status, whenever it changes", stream_of(sample.into()))
        .problems([unknown_sale(), unavailable(), too_many_listeners()]);
    let operation = operation(TAG, &which.id("events"), "Listen to the sale", answers).description(Some(
        "Server-sent events of the type `status`, each with what `GET status` answers: one at once, then one a change, at \
         most five a second; a comment where there was none for 10 seconds.",
    ));
    which.entry("events", HttpMethod::Get, operation)
}
