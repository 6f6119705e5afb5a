//! The API for orders: HTTP with bearer tokens that have names and roles.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use service::edge::{self, AdmitAll};
use service::operators::{self, OperatorTokens};
use service::problem::Problem;
use service::time::iso8601;
use stock::ids::SaleId;

use crate::audit::Audits;
use crate::export::Format;
use crate::orders::{Orders, PAGE, ReadError, SaleOrders, StoredOrder};

/// Longest time until an answer begins.
const DEADLINE: Duration = Duration::from_secs(30);

/// The API, merged with `ops_routes`: probes and metrics, which need no token.
pub fn router(orders: Orders, audits: Audits, tokens: OperatorTokens, ops_routes: Router) -> Router {
    let api = Router::new()
        .route("/sales/{sale}/orders", get(list))
        .route("/sales/{sale}/orders/{order}", get(by_order))
        .route("/sales/{sale}/orders/{order}/user", delete(erase_user))
        .route("/sales/{sale}/users/{user}/order", get(by_user))
        .route("/sales/{sale}/totals", get(totals));
    let api = operators::protect(api.merge(audits.router()), tokens).with_state(orders);
    edge::wrap(api.merge(ops_routes), AdmitAll, DEADLINE)
}

/// Extracts the orders of the sale in the path.
struct OfSale(SaleOrders);

impl FromRequestParts<Orders> for OfSale {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, orders: &Orders) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct SaleInPath {
            sale: String,
        }
        let path = Path::<SaleInPath>::from_request_parts(parts, orders).await;
        let id: Option<SaleId> = path.ok().and_then(|Path(path)| path.sale.parse().ok());
        let orders = match id {
            Some(id) => orders.of(&id).await?,
            None => None,
        };
        orders.map(Self).ok_or_else(|| not_found("The ledger has no orders of this sale."))
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::warn!(%error, "orders not read");
        let problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE).detail("The orders cannot be read now. Try again.");
        problem.retry_after(Duration::from_secs(1))
    }
}

fn not_found(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail(detail)
}

#[derive(Deserialize)]
struct Range {
    /// The position before the first order.
    #[serde(default)]
    after: u32,
    /// Most orders.
    limit: Option<u32>,
}

async fn list(
    OfSale(orders): OfSale,
    range: Result<Query<Range>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(Range { after, limit }) = range.map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST).detail("after and limit must be numbers from 0 to 4294967295.")
    })?;
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match Format::accepted(accepted) {
        Some(format) => Ok(export(orders, format, after.into(), limit)),
        None => page(&orders, after.into(), limit.unwrap_or(PAGE).min(PAGE)).await,
    }
}

/// A page as JSON. `next` is the value of `after` for the next page; it is missing on the last one.
async fn page(orders: &SaleOrders, after: i64, limit: u32) -> Result<Response, Problem> {
    let found = orders.after(after, limit).await?;
    let next = found.last().filter(|_| found.len() == limit as usize).map(|order| order.position);
    let list: Vec<Value> = found.into_iter().map(view).collect();
    let mut body = json!({ "orders": list });
    if let Some(next) = next {
        body["next"] = next.into();
    }
    Ok(Json(body).into_response())
}

/// All orders after a position as one stream. It is read page by page, as fast as the client takes it.
fn export(orders: SaleOrders, format: Format, after: i64, limit: Option<u32>) -> Response {
    let start = (orders, after, limit.unwrap_or(u32::MAX), Some(format.head()));
    let pages = stream::try_unfold(start, move |(orders, after, left, head)| async move {
        if let Some(head) = head.filter(|head| !head.is_empty()) {
            return Ok(Some((Bytes::from(head), (orders, after, left, None))));
        }
        let page = orders.after(after, left.min(PAGE)).await.inspect_err(|error| {
            tracing::warn!(%error, "an export ended before its end");
        })?;
        let Some(last) = page.last().map(|order| order.position) else { return Ok::<_, ReadError>(None) };
        let left = left - page.len() as u32;
        Ok(Some((Bytes::from(format.write(page)), (orders, last, left, None))))
    });
    ([(CONTENT_TYPE, format.content_type())], Body::from_stream(pages)).into_response()
}

async fn by_order(
    OfSale(orders): OfSale,
    Path((_, order)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let found = orders.by_order(&order).await?;
    found.map(|order| Json(view(order))).ok_or_else(|| not_found("The ledger has no such order."))
}

async fn by_user(
    OfSale(orders): OfSale,
    Path((_, user)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let found = orders.by_user(&user).await?;
    found.map(|order| Json(view(order))).ok_or_else(|| not_found("The ledger has no order of this user."))
}

async fn totals(OfSale(orders): OfSale) -> Result<Json<Value>, Problem> {
    let minutes = orders.by_minute().await?;
    let total: i64 = minutes.iter().map(|(_, count)| count).sum();
    let minutes: Vec<Value> = minutes
        .into_iter()
        .map(|(start, orders)| json!({ "minute": iso8601(start), "orders": orders }))
        .collect();
    Ok(Json(json!({ "orders": total, "byMinute": minutes })))
}

async fn erase_user(
    State(_): State<Orders>,
    OfSale(orders): OfSale,
    Path((_, order)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match orders.erase_user(&order).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found("The ledger has no such order.")),
    }
}

fn view(StoredOrder { position, mut payload }: StoredOrder) -> Value {
    payload["position"] = position.into();
    payload
}
