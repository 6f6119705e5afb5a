//! The table of contents: one line an endpoint, by who calls it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use service::edge::{self, AdmissionControl};

use crate::http::{AppState, by_sale, cors, csrf, docs, events, openapi, page, single_sale};

/// Longest time to the head of an answer: longer than PURCHASE_TIMEOUT and than a body may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// Everything on the port for buyers.
pub fn router(shop: Arc<AppState>, gate: impl AdmissionControl) -> Router {
    let cors = cors::layer(shop.origins());
    let routes =
        Router::new().merge(of_by_sale_clients()).merge(of_single_sale_clients()).merge(of_readers());
    // Browsers: the storefront page, which calls the first of these families.
    let router = edge::around(routes.with_state(shop).merge(page::router()), gate, DEADLINE);
    // Outermost: a page of another site must be able to read a refusal, too.
    cors.into_iter().fold(router, Router::layer)
}

/// Clients that know of many sales, and say which one or mean the default one.
#[rustfmt::skip]
fn of_by_sale_clients() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/sales/{sale}/status",            get(by_sale::status))
        .route("/api/sales/{sale}/purchase",          post(by_sale::purchase))
        .route("/api/sales/{sale}/purchase/{userId}", get(by_sale::find))
        .route("/api/sales/{sale}/events",            get(events::events))

        .route("/api/sale/status",                    get(by_sale::status))
        .route("/api/sale/purchase",                  post(by_sale::purchase))
        .route("/api/sale/purchase/{userId}",         get(by_sale::find))
        .route("/api/sale/events",                    get(events::events))
}

/// Clients that know of one sale only: the default one.
#[rustfmt::skip]
fn of_single_sale_clients() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/status",            get(single_sale::status))
        .route("/api/csrf",              get(csrf::issue))
        .route("/api/purchase",          post(single_sale::purchase))
        .route("/api/purchase/{userId}", get(single_sale::find))
}

/// People and programs that want to know what there is to ask.
#[rustfmt::skip]
fn of_readers() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/openapi.json", get(openapi::document))
        .route("/api/docs",         get(docs::page))
        .route("/api/docs/{file}",  get(docs::file))
}
