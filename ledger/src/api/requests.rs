//! The parts of a request: the sale, the range of orders, the format.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use service::problem::Problem;
use stock::ids::SaleId;
use utoipa::IntoParams;

use super::OrdersApi;
use super::problems::{beyond_the_end, invalid, not_acceptable, unknown_sale};
use crate::export::Format;
use crate::orders::SaleOrders;

/// Extracts the orders of the sale in the path.
pub(super) struct OfSale(pub(super) SaleOrders);

/// The sale among those of its name.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CreationQuery {
    /// The creation of the sale, as in `GET /sales`. Without it: the latest sale of this name.
    creation: Option<String>,
}

impl FromRequestParts<OrdersApi> for OfSale {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &OrdersApi) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct SaleInPath {
            sale: String,
        }
        let path = Path::<SaleInPath>::from_request_parts(parts, api).await;
        let id: Option<SaleId> = path.ok().and_then(|Path(path)| path.sale.parse().ok());
        let Query(CreationQuery { creation }) = Query::try_from_uri(&parts.uri).map_err(invalid_query)?;
        // PostgreSQL refuses this character in every text.
        let is_text = creation.as_ref().is_none_or(|creation| !creation.contains('\0'));
        let orders = match id.filter(|_| is_text) {
            Some(id) => api.orders.of(&id, creation.as_deref()).await?,
            None => None,
        };
        orders.map(Self).ok_or_else(unknown_sale)
    }
}

/// A range of orders. A misspelled name would otherwise give other orders, so unknown ones are refused.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RangeQuery {
    /// The creation of the sale, as in `GET /sales`. Without it: the latest sale of this name.
    creation: Option<String>,
    /// The position before the first order. With a value other than 0, `creation` is required.
    #[serde(default)]
    #[param(required = false, default = 0, minimum = 0, maximum = 9_223_372_036_854_775_807_u64)]
    after: u64,
    /// Most orders. A page never has more than 1,000. A file has all orders by default.
    #[param(required = false, minimum = 1, maximum = 9_223_372_036_854_775_807_u64)]
    limit: Option<u64>,
}

/// Extracts the range of orders that a request asks for.
pub(super) struct Range {
    after: i64,
    limit: Option<i64>,
    has_creation: bool,
}

impl<S: Sync> FromRequestParts<S> for Range {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(RangeQuery { creation, after, limit }) =
            Query::try_from_uri(&parts.uri).map_err(invalid_query)?;
        let number = |name: &str, value: u64| {
            i64::try_from(value).map_err(|_| invalid(format!("{name} must be at most {}.", i64::MAX)))
        };
        if limit == Some(0) {
            return Err(invalid("limit must be at least 1."));
        }
        let limit = limit.map(|limit| number("limit", limit)).transpose()?;
        Ok(Self { after: number("after", after)?, limit, has_creation: creation.is_some() })
    }
}

impl Range {
    /// Returns the position before the first order and that of the last one, `limit_max` after it at most.
    pub(super) fn of(&self, orders: &SaleOrders, limit_max: Option<u32>) -> Result<(i64, i64), Problem> {
        let Self { after, limit, has_creation } = *self;
        if after > 0 && !has_creation {
            return Err(invalid("after needs the creation of its sale: follow next, or see GET /sales."));
        }
        if after > orders.last {
            return Err(beyond_the_end(after, orders.last));
        }
        let limit_max = limit_max.map_or(i64::MAX, i64::from);
        let limit = limit.map_or(limit_max, |limit| limit.min(limit_max));
        Ok((after, orders.last.min(after.saturating_add(limit))))
    }

    /// Returns the path of the orders after a position.
    pub(super) fn next(&self, orders: &SaleOrders, after: i64) -> String {
        let limit = self.limit.map_or_else(String::new, |limit| format!("&limit={limit}"));
        // Neither the name nor the creation of a sale has a character that a URL would escape.
        format!("/sales/{}/orders?creation={}&after={after}{limit}", orders.sale, orders.creation)
    }
}

/// Extracts the format that the client accepts.
pub(super) struct Accepted(pub(super) Format);

impl<S: Sync> FromRequestParts<S> for Accepted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Format::accepted(&accept(&parts.headers)).map(Self).ok_or_else(not_acceptable)
    }
}

fn accept(headers: &HeaderMap) -> String {
    let values: Vec<&str> =
        headers.get_all(ACCEPT).iter().map(HeaderValue::to_str).filter_map(Result::ok).collect();
    values.join(",")
}

fn invalid_query(rejection: QueryRejection) -> Problem {
    invalid(format!("The query is invalid. {}", rejection.body_text()))
}
