//! The admin API for operators: HTTP with bearer tokens that have names and roles.
//!
//! Only this module and `live` know status codes and headers.

mod problems;
mod requests;
mod views;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use service::edge::{self, AdmitAll};
use service::json::JsonBody;
use service::operators::{self, OperatorTokens};
use service::problem::Problem;
use service::time::now;
use stock::audit::AuditReport;
use stock::history::ChangeOrigin;
use stock::ids::SaleId;

use crate::change::Change;
use crate::coordinator::Coordinator;
use crate::operations::{Created, OperationError};
use requests::{
    ArchiveRequest, Extension, NewSaleRequest, OptionalBody, Origin, ReasonRequest, RestockKey,
    RestockRequest, SaleListQuery, because,
};

/// Longest time for a request: an audit reads every claim and every order of a sale.
const DEADLINE: Duration = Duration::from_mins(2);

/// Handle to the coordinator. Set once the Redis Cluster is reachable.
#[derive(Clone, Default)]
pub struct CoordinatorHandle(Arc<OnceLock<Arc<Coordinator>>>);

impl CoordinatorHandle {
    /// Sets the coordinator that requests are handled by.
    ///
    /// # Panics
    /// When it is set already.
    pub fn set(&self, coordinator: Arc<Coordinator>) {
        assert!(self.0.set(coordinator).is_ok(), "the handle is set once");
    }

    /// Returns the coordinator, once it is set.
    pub(crate) fn coordinator(&self) -> Option<Arc<Coordinator>> {
        self.0.get().cloned()
    }
}

/// The admin API, merged with `ops_routes`: probes and metrics, which need no token.
pub fn router(handle: CoordinatorHandle, tokens: OperatorTokens, ops_routes: Router) -> Router {
    let admin = Router::new()
        .route("/admin/sales", get(list).post(create))
        .route("/admin/sales/{sale}", get(show))
        .route(
            "/admin/sales/{sale}/pause",
            post(|coordinator, sale, origin, body| simple(coordinator, sale, origin, body, Change::Pause)),
        )
        .route(
            "/admin/sales/{sale}/resume",
            post(|coordinator, sale, origin, body| simple(coordinator, sale, origin, body, Change::Resume)),
        )
        .route(
            "/admin/sales/{sale}/end",
            post(|coordinator, sale, origin, body| simple(coordinator, sale, origin, body, Change::End)),
        )
        .route("/admin/sales/{sale}/archive", post(archive))
        .route("/admin/sales/{sale}/extend", post(extend))
        .route("/admin/sales/{sale}/restock", post(restock))
        .route("/admin/sales/{sale}/audit", get(audit))
        .route("/admin/sales/{sale}/history", get(history))
        .route("/admin/coordinators", get(coordinators));
    let admin = operators::protect(admin, tokens).with_state(handle);
    edge::wrap(admin.merge(ops_routes), AdmitAll, DEADLINE)
}

/// Extracts the coordinator. Rejects the request with 503 until it is set.
struct ReadyCoordinator(Arc<Coordinator>);

impl FromRequestParts<CoordinatorHandle> for ReadyCoordinator {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, handle: &CoordinatorHandle) -> Result<Self, Problem> {
        handle.coordinator().map(Self).ok_or_else(problems::no_cluster)
    }
}

/// Extracts the sale id in the path. An invalid id gets the same 404 as an unknown one.
struct SalePath(SaleId);

impl FromRequestParts<CoordinatorHandle> for SalePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, handle: &CoordinatorHandle) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, handle).await;
        let Path(name) = path.map_err(|_| Problem::new(StatusCode::NOT_FOUND))?;
        name.parse().map(Self).map_err(|_| OperationError::NoSale(name).into())
    }
}

async fn list(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    SaleListQuery(query): SaleListQuery,
) -> Result<Json<Value>, Problem> {
    Ok(Json(views::sales(&coordinator.sales.list(&query).await?)))
}

async fn create(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    Origin(origin): Origin,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (wanted, reason) = body.parse::<NewSaleRequest>()?.read()?;
    let Created { sale, is_new } = coordinator.sales.create(&wanted, &because(origin, reason)?).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(views::sale(&sale))).into_response())
}

async fn show(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    SalePath(sale): SalePath,
) -> Result<Json<Value>, Problem> {
    Ok(Json(views::detail(&coordinator.sales.inspect(&sale).await?)))
}

async fn extend(
    coordinator: ReadyCoordinator,
    sale: SalePath,
    Origin(origin): Origin,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let (ends_at, reason) = body.parse::<Extension>()?.read()?;
    let ends_at = ends_at.resolve(now());
    change(coordinator, sale, because(origin, reason)?, Change::Extend { ends_at }).await
}

async fn restock(
    coordinator: ReadyCoordinator,
    sale: SalePath,
    RestockKey(key): RestockKey,
    Origin(origin): Origin,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let RestockRequest { units, reason } = body.parse()?;
    let restock = Change::Restock(stock::sale::Restock { key, units });
    change(coordinator, sale, because(origin, reason)?, restock).await
}

async fn archive(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    SalePath(sale): SalePath,
    Origin(origin): Origin,
    OptionalBody(ArchiveRequest { orders_exported, reason }): OptionalBody<ArchiveRequest>,
) -> Result<Json<Value>, Problem> {
    let sale = coordinator.sales.archive(&sale, orders_exported, &because(origin, reason)?).await?;
    Ok(Json(views::sale(&sale)))
}

/// A change without values. Its body may give a reason, or be missing.
async fn simple(
    coordinator: ReadyCoordinator,
    sale: SalePath,
    Origin(origin): Origin,
    OptionalBody(ReasonRequest { reason }): OptionalBody<ReasonRequest>,
    simple: Change,
) -> Result<Json<Value>, Problem> {
    change(coordinator, sale, because(origin, reason)?, simple).await
}

async fn change(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    SalePath(sale): SalePath,
    origin: ChangeOrigin,
    change: Change,
) -> Result<Json<Value>, Problem> {
    let sale = coordinator.sales.change(&sale, &change, &origin).await?;
    Ok(Json(views::sale(&sale)))
}

async fn history(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    SalePath(sale): SalePath,
) -> Result<Json<Value>, Problem> {
    Ok(Json(views::history(&coordinator.sales.history(&sale).await?)))
}

async fn coordinators(ReadyCoordinator(coordinator): ReadyCoordinator) -> Json<Value> {
    Json(views::coordinators(coordinator.leadership()))
}

async fn audit(
    ReadyCoordinator(coordinator): ReadyCoordinator,
    SalePath(sale): SalePath,
) -> Result<Json<AuditReport>, Problem> {
    Ok(Json(coordinator.sales.audit(&sale).await?))
}

#[cfg(test)]
mod tests;
