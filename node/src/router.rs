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
pub fn router(state: Arc<AppState>, admission: impl AdmissionControl) -> Router {
    let cors = cors::layer(state.origins());
    let routes =
        Router::new().merge(by_sale_routes()).merge(single_sale_routes()).merge(documentation_routes());
    // Browsers: the storefront page, which calls the first of these families.
    let router = edge::wrap(routes.with_state(state).merge(page::router()), admission, DEADLINE);
    // Outermost: a page of another site must be able to read a refusal, too.
    cors.into_iter().fold(router, Router::layer)
}

/// Clients that know of many sales, and say which one or mean the default one.
#[rustfmt::skip]
fn by_sale_routes() -> Router<Arc<AppState>> {
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
fn single_sale_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/status",            get(single_sale::status))
        .route("/api/csrf",              get(csrf::issue))
        .route("/api/purchase",          post(single_sale::purchase))
        .route("/api/purchase/{userId}", get(single_sale::find))
}

/// People and programs that want to know what there is to ask.
#[rustfmt::skip]
fn documentation_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/openapi.json", get(openapi::document))
        .route("/api/docs",         get(docs::page))
        .route("/api/docs/{file}",  get(docs::file))
}
