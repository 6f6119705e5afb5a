//! The API for orders: HTTP with bearer tokens that have names and roles.
//!
//! The sale of a request is read once. Its last position bounds the answer, so a page or a file has all orders up to
//! there, and what comes later is in the next one.

mod description;
mod problems;
mod requests;
mod views;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LINK};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use service::edge::{self, AdmitAll};
use service::operators::{self, OperatorTokens};
use service::problem::Problem;
use tokio::sync::Semaphore;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::{Audits, SaleAudit};
use crate::export::{self, Format, PAGE};
use crate::orders::Orders;
use description::Description;
use problems::{cannot_audit, not_found, too_many_exports, unknown_sale};
use requests::{Accepted, CreationQuery, OfSale, Range, RangeQuery};

/// Longest time until an answer begins.
const DEADLINE: Duration = Duration::from_secs(30);

/// Most exports at a time. Each holds a page of some 250 kB while its client reads.
const EXPORTS_MAX: usize = 16;

/// Most sales in a list, and most orders of a person.
const LIST_MAX: u32 = 1_000;

/// The state of the API.
#[derive(Clone)]
struct OrdersApi {
    orders: Orders,
    audits: Audits,
    exports: Arc<Semaphore>,
}

/// The API, merged with `ops_routes`: probes and metrics, which need no token.
pub fn router(orders: Orders, audits: Audits, tokens: OperatorTokens, ops_routes: Router) -> Router {
    let state = OrdersApi { orders, audits, exports: Arc::new(Semaphore::new(EXPORTS_MAX)) };
    let (api, description) = api().split_for_parts();
    let api = operators::protect(api, tokens).with_state(state);
    edge::wrap(api.merge(description::router(description)).merge(ops_routes), AdmitAll, DEADLINE)
}

/// The API and its description.
fn api() -> OpenApiRouter<OrdersApi> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(sales))
        .routes(routes!(history))
        .routes(routes!(totals))
        .routes(routes!(audit))
        .routes(routes!(list))
        .routes(routes!(by_order))
        .routes(routes!(by_user))
        .routes(routes!(of_person))
        .routes(routes!(erase_user))
}

/// Lists sales.
///
/// The latest 1,000 that the ledger has seen, with the latest one first. A name that was used again is in the list once
/// for each sale.
#[utoipa::path(get, path = "/sales", responses((status = 200, description = "The sales.", body = views::SaleList)))]
async fn sales(State(api): State<OrdersApi>) -> Result<Json<views::SaleList>, Problem> {
    Ok(Json(views::sales(api.orders.sales(LIST_MAX).await?)))
}

/// Shows the history of a sale.
///
/// All versions of its settings that the ledger has seen, and all changes with their origin, with the latest one first.
#[utoipa::path(
    get,
    path = "/sales/{sale}/history",
    params(CreationQuery),
    responses((status = 200, description = "The history.", body = views::History))
)]
async fn history(OfSale(orders): OfSale) -> Result<Json<views::History>, Problem> {
    Ok(Json(views::history(orders.versions().await?, orders.changes().await?)))
}

/// Counts orders.
#[utoipa::path(
    get,
    path = "/sales/{sale}/totals",
    params(CreationQuery),
    responses((status = 200, description = "The numbers of orders.", body = views::Totals))
)]
async fn totals(OfSale(orders): OfSale) -> Result<Json<views::Totals>, Problem> {
    Ok(Json(views::totals(orders.by_minute().await?)))
}

/// Audits a sale.
///
/// Compares the orders in PostgreSQL with the claims and order streams in Redis, up to the latest order that the ledger has
/// written of each shard. Later ones are counted as `behind`, which is no violation. One audit runs at a time; one of a
/// million orders takes some seconds.
#[utoipa::path(get, path = "/sales/{sale}/audit", responses((status = 200, description = "The audit.", body = SaleAudit)))]
async fn audit(State(api): State<OrdersApi>, Path(sale): Path<String>) -> Result<Json<SaleAudit>, Problem> {
    let sale = sale.parse().map_err(|_| unknown_sale())?;
    Ok(Json(api.audits.audit(&sale).await.map_err(|error| cannot_audit(&sale, &error))?))
}

/// Lists orders.
///
/// In the order of their positions, which have no gaps. As JSON a page, as NDJSON or CSV a file with all of them. Each
/// answer has all orders up to its end, and names the place after it: `next` of a page, and the header `Link` of a page or
/// file. Later orders are there, also when there are none now. A file that was cut short has no end: the client reports an
/// incomplete response.
#[utoipa::path(
    get,
    path = "/sales/{sale}/orders",
    params(RangeQuery),
    responses((
        status = 200,
        description = "The orders.",
        headers(
            ("Link" = String, description = "The path of later orders, with `rel=\"next\"`."),
            ("Content-Disposition" = String, description = "With CSV: the name of the file.")
        ),
        content(
            (views::Page = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv")
        )
    ))
)]
async fn list(
    State(api): State<OrdersApi>,
    OfSale(orders): OfSale,
    range: Range,
    Accepted(format): Accepted,
) -> Result<Response, Problem> {
    let (after, until) = range.of(&orders, (format == Format::Json).then_some(PAGE))?;
    let next = range.next(&orders, until);
    let link = [(LINK, format!("<{next}>; rel=\"next\""))];
    if format == Format::Json {
        let found = orders.between(after, until).await?;
        return Ok((link, Json(views::page(found, orders, until, next))).into_response());
    }
    let place = Arc::clone(&api.exports).try_acquire_owned().map_err(|_| too_many_exports())?;
    let name = format!("attachment; filename=\"{}-orders.csv\"", orders.sale);
    let file = export::file(orders, format, after, until, place);
    let file = (link, [(CONTENT_TYPE, format.content_type())], file);
    let is_csv = format == Format::Csv;
    Ok(if is_csv { ([(CONTENT_DISPOSITION, name)], file).into_response() } else { file.into_response() })
}

/// Shows an order.
#[utoipa::path(
    get,
    path = "/sales/{sale}/orders/{order}",
    params(CreationQuery, ("order" = String, Path, description = "Id of the order.", example = "71R7D8J57MH5DF")),
    responses((status = 200, description = "The order.", body = views::Order))
)]
async fn by_order(
    OfSale(orders): OfSale,
    Path((_, order)): Path<(String, String)>,
) -> Result<Json<views::Order>, Problem> {
    let found = orders.by_order(&order).await?.ok_or_else(|| not_found("The ledger has no such order."))?;
    Ok(Json(views::Order::of(found)))
}

/// Shows the order of a user.
///
/// The id is interpreted as at a purchase.
#[utoipa::path(
    get,
    path = "/sales/{sale}/users/{user}/order",
    params(CreationQuery, ("user" = String, Path, description = "Id of the user.", example = "ada")),
    responses((status = 200, description = "The order.", body = views::Order))
)]
async fn by_user(
    OfSale(orders): OfSale,
    Path((_, user)): Path<(String, String)>,
) -> Result<Json<views::Order>, Problem> {
    let found = orders.by_user(&user).await?;
    let found = found.ok_or_else(|| not_found("The ledger has no order of this user."))?;
    Ok(Json(views::Order::of(found)))
}

/// Lists the orders of a person in all sales.
///
/// At most 1,000, with the earliest one first. Each sale interprets the id as at a purchase. Use it to answer a person who asks
/// for their data, or before erasing them.
#[utoipa::path(
    get,
    path = "/users/{user}/orders",
    params(("user" = String, Path, description = "Id of the user.", example = "ada")),
    responses((status = 200, description = "The orders.", body = views::PersonsOrders))
)]
async fn of_person(
    State(api): State<OrdersApi>,
    Path(user): Path<String>,
) -> Result<Json<views::PersonsOrders>, Problem> {
    Ok(Json(views::of_person(api.orders.of_person(&user, LIST_MAX).await?)))
}

/// Erases the person from an order.
///
/// The user id and the correlation id are removed, and the order stays. It needs a token with the role `operate`, and may
/// be repeated.
#[utoipa::path(
    delete,
    path = "/sales/{sale}/orders/{order}/user",
    params(CreationQuery, ("order" = String, Path, description = "Id of the order.", example = "71R7D8J57MH5DF")),
    responses((status = 204, description = "The order names no person any more."))
)]
async fn erase_user(
    OfSale(orders): OfSale,
    Path((_, order)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match orders.erase_user(&order).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found("The ledger has no such order.")),
    }
}
