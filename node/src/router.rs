//! All endpoints, one line each, grouped by the clients that call them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use service::edge::{self, AdmissionControl};

use crate::http::{AppState, by_sale, cors, csrf, docs, events, openapi, page, single_sale};

/// Deadline for the head of a response. Longer than PURCHASE_TIMEOUT and than the time limit for a request body.
const DEADLINE: Duration = Duration::from_secs(15);

/// Builds the router of the buyers' port.
pub fn router(state: Arc<AppState>, admission: impl AdmissionControl) -> Router {
    let cors = cors::layer(state.origins());
    let routes =
        Router::new().merge(by_sale_routes()).merge(single_sale_routes()).merge(documentation_routes());
    // The storefront page. It calls the by-sale endpoints.
    let router = edge::wrap(routes.with_state(state).merge(page::router()), admission, DEADLINE);
    // CORS is the outermost layer, because pages of other sites must be able to read error responses too.
    cors.into_iter().fold(router, Router::layer)
}

/// Endpoints for clients that know several sales. The path names a sale or means the default one.
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

/// Endpoints for clients that know a single sale: the default one.
#[rustfmt::skip]
fn single_sale_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/status",            get(single_sale::status))
        .route("/api/csrf",              get(csrf::issue))
        .route("/api/purchase",          post(single_sale::purchase))
        .route("/api/purchase/{userId}", get(single_sale::find))
}

/// API documentation for people and programs.
#[rustfmt::skip]
fn documentation_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/api/openapi.json", get(openapi::document))
        .route("/api/docs",         get(docs::page))
        .route("/api/docs/{file}",  get(docs::file))
}
