//! All endpoints, one line each, grouped by the clients that call them. Each handler describes its own.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use service::edge::{self, AdmissionControl};
use utoipa::OpenApi as _;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::http::{AppState, by_sale, cors, csrf, docs, events, openapi, page, single_sale};

/// Deadline for the head of a response. Longer than PURCHASE_TIMEOUT and than the time limit for a request body.
const DEADLINE: Duration = Duration::from_secs(15);

/// Builds the router of the buyers' port.
pub fn router(state: Arc<AppState>, admission: impl AdmissionControl) -> Router {
    let cors = cors::layer(state.origins());
    let (api, description) = api().with_state(Arc::clone(&state)).split_for_parts();
    let documentation = if state.shows_documentation() {
        documentation_routes().merge(openapi::router(description))
    } else {
        Router::new()
    };
    // The storefront page calls the by-sale endpoints.
    let routes = api.merge(documentation).merge(page::router(state.sign_in_url()));
    let router = edge::wrap(routes, admission, DEADLINE);
    // CORS is the outermost layer, because pages of other sites must be able to read error responses too.
    cors.into_iter().fold(router, Router::layer)
}

/// The API and its description.
pub(crate) fn api() -> OpenApiRouter<Arc<AppState>> {
    let description = OpenApiRouter::with_openapi(openapi::Description::openapi());
    let by_sale = ["/api/sales/{sale}", "/api/sale"].into_iter().flat_map(by_sale_routes);
    by_sale.fold(description, OpenApiRouter::routes).merge(single_sale_routes())
}

/// Endpoints for clients that know several sales. The path names a sale or means the default one.
fn by_sale_routes(prefix: &str) -> [UtoipaMethodRouter<Arc<AppState>>; 4] {
    let endpoints = [
        routes!(by_sale::status),
        routes!(by_sale::purchase),
        routes!(by_sale::find),
        routes!(events::events),
    ];
    endpoints.map(|endpoint| under(prefix, endpoint))
}

/// Puts a prefix before the path of an endpoint. A nested router would cost each request a second routing.
fn under(
    prefix: &str,
    (schemas, mut paths, methods): UtoipaMethodRouter<Arc<AppState>>,
) -> UtoipaMethodRouter<Arc<AppState>> {
    paths.paths = paths.paths.into_iter().map(|(path, item)| (format!("{prefix}{path}"), item)).collect();
    (schemas, paths, methods)
}

/// Endpoints for clients that know a single sale: the default one.
fn single_sale_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(single_sale::status))
        .routes(routes!(csrf::issue))
        .routes(routes!(single_sale::purchase))
        .routes(routes!(single_sale::find))
}

/// API documentation for people. `openapi` has the one for programs.
fn documentation_routes() -> Router {
    Router::new().route("/api/docs", get(docs::page)).route("/api/docs/{file}", get(docs::file))
}
