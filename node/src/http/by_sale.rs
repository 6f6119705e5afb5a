//! The by-sale endpoints: `/api/sales/{sale}/…`, and `/api/sale/…` for the default sale.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use service::problem::Problem;
use service::time::iso8601;
use stock::calls::Claim;
use stock::ids::{InvalidId, OrderId, SaleId};
use utoipa::{IntoResponses, ToSchema};

use super::AppState;
use super::caller::{Caller, RequestError};
use super::csrf::CsrfGuard;
use super::openapi::{
    Answers, INVALID_USER_ID, IdempotencyKey, OptionalCsrfCookie, OptionalCsrfHeader, PURCHASE, Responses,
    samples, schemas,
};
use super::problems::{
    busy, csrf_rejected, lookup_failed, network_full, order_not_found, other_user, too_many_requests,
    unavailable, unknown_outcome, unknown_sale,
};
use super::request::{PurchaseRequest, SalePath};
use crate::csrf::BadToken;
use crate::sales::{Outcome, Phase, Status};

/// Name of this family in the description of the API.
pub(super) const TAG: &str = "by sale";

/// Status of the sale.
///
/// From memory, at most a fraction of a second old. A sold-out sale stays `active`, with `soldOut`, until its window
/// closes.
#[utoipa::path(get, path = "/status", tag = TAG, responses(StatusBody))]
pub(crate) async fn status(
    State(state): State<Arc<AppState>>,
    path: SalePath,
) -> Result<Json<StatusBody>, Problem> {
    let sale = state.sale(path.sale.as_ref()).await?;
    Ok(Json(StatusBody::of(&sale.status())))
}

/// Buys one unit.
#[utoipa::path(
    post,
    path = "/purchase",
    tag = TAG,
    description = PURCHASE,
    params(IdempotencyKey, OptionalCsrfHeader, OptionalCsrfCookie),
    request_body(content = schemas::Purchase, description = "Other members are ignored."),
    responses(Purchased),
    security((), ("bearer" = []))
)]
pub(crate) async fn purchase(
    State(state): State<Arc<AppState>>,
    _: CsrfGuard,
    caller: Caller,
    path: SalePath,
    request: PurchaseRequest,
) -> Result<Response, Problem> {
    let sale = state.sale(path.sale.as_ref()).await?;
    let client = request.client;
    match state.attempt(request, &sale.config(), &caller).await {
        Ok(attempt) => Ok(answer(state.purchase(&sale, attempt, client).await)),
        Err(RequestError::InvalidId(invalid)) => Ok(Refused::invalid_user_id(&invalid).into_response()),
        Err(RequestError::OtherUser) => Err(other_user()),
        Err(RequestError::Limited(limited)) => Err(too_many_requests(limited)),
    }
}

/// Looks up a purchase.
///
/// Asks the user's home shard.
#[utoipa::path(
    get,
    path = "/purchase/{userId}",
    tag = TAG,
    params(("userId" = schemas::UserId, Path, description = "Id of the user.")),
    responses(LookupBody),
    security((), ("bearer" = []))
)]
pub(crate) async fn find(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    path: SalePath,
) -> Result<Response, Problem> {
    let sale = state.sale(path.sale.as_ref()).await?;
    match caller.user(&path.user, sale.config().user_ids) {
        Ok(user) => {
            let claim = sale.find(user).await.map_err(lookup_failed)?;
            Ok(Json(LookupBody::of(claim)).into_response())
        }
        Err(RequestError::InvalidId(invalid)) => Ok(Refused::invalid_user_id(&invalid).into_response()),
        Err(RequestError::OtherUser) => Err(order_not_found()),
        Err(RequestError::Limited(limited)) => Err(too_many_requests(limited)),
    }
}

/// Public status of a sale.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SaleStatus)]
pub(crate) struct StatusBody {
    #[schema(value_type = schemas::SaleId)]
    sale_id: SaleId,
    status: SaleStatusCode,
    #[schema(value_type = schemas::Moment)]
    starts_at: String,
    #[schema(value_type = schemas::Moment)]
    ends_at: String,
    remaining_stock: u64,
    total_stock: u64,
    sold_out: bool,
    product_name: String,
    product_price: f64,
    #[schema(value_type = schemas::Moment)]
    server_time: String,
}

/// Phase of a sale. A sold-out sale is marked by a member of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SaleStatusWord)]
enum SaleStatusCode {
    Upcoming,
    Active,
    Paused,
    Ended,
}

/// The buyer has a unit.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Purchased {
    success: bool,
    message: &'static str,
    #[schema(value_type = schemas::OrderId)]
    order_id: OrderId,
    #[schema(value_type = schemas::Moment)]
    purchased_at: String,
}

/// The buyer gets no unit, and this is no error.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    success: bool,
    reason: RefusalReason,
    #[schema(value_type = String)]
    message: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schemas::OrderId, required = false)]
    order_id: Option<OrderId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schemas::Moment, required = false)]
    purchased_at: Option<String>,
}

/// Reason of a refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RefusalReason {
    AlreadyPurchased,
    OutOfStock,
    SaleNotActive,
    InvalidUserId,
}

/// Tells if a user has a unit.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LookupBody {
    has_purchased: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schemas::Moment, required = false)]
    purchased_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schemas::OrderId, required = false)]
    order_id: Option<OrderId>,
}

impl StatusBody {
    pub(super) fn of(status: &Status) -> Self {
        let config = &status.config;
        Self {
            sale_id: config.id.clone(),
            status: status.phase.into(),
            starts_at: iso8601(config.window.starts_at),
            ends_at: iso8601(config.window.ends_at),
            remaining_stock: config.total_stock.saturating_sub(status.sold),
            total_stock: config.total_stock,
            sold_out: status.sold_out,
            product_name: config.product.name.clone(),
            product_price: config.product.price,
            server_time: iso8601(status.server_time),
        }
    }

    /// Returns true when nothing but the time differs.
    pub(super) fn equals_except_time(&self, later: &Self) -> bool {
        Self { server_time: later.server_time.clone(), ..self.clone() } == *later
    }
}

impl From<Phase> for SaleStatusCode {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Upcoming => Self::Upcoming,
            Phase::Active => Self::Active,
            Phase::Paused => Self::Paused,
            Phase::Ended => Self::Ended,
        }
    }
}

/// Returns the response to a purchase.
fn answer(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Purchased(claim) => Json(Purchased::of(claim)).into_response(),
        Outcome::AlreadyPurchased(claim) => Refused::already_purchased(claim).into_response(),
        Outcome::OutOfStock => Refused::new(RefusalReason::OutOfStock, "Every unit is sold.").into_response(),
        Outcome::NotActive(phase) => Refused::not_active(phase).into_response(),
        Outcome::Busy => busy().into_response(),
        Outcome::NetworkFull => network_full().into_response(),
        Outcome::Unknown(order) => unknown_outcome(order).into_response(),
    }
}

impl Purchased {
    fn of(claim: Claim) -> Self {
        Self {
            success: true,
            message: "One unit is yours.",
            order_id: claim.order,
            purchased_at: iso8601(claim.purchased_at),
        }
    }
}

impl Refused {
    fn new(reason: RefusalReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { success: false, reason, message: message.into(), order_id: None, purchased_at: None }
    }

    fn already_purchased(claim: Claim) -> Self {
        Self {
            order_id: Some(claim.order),
            purchased_at: Some(iso8601(claim.purchased_at)),
            ..Self::new(RefusalReason::AlreadyPurchased, "You have bought your unit already.")
        }
    }

    fn not_active(phase: Phase) -> Self {
        let message = match phase {
            Phase::Upcoming => "The sale has not started yet.",
            Phase::Paused => "The sale is paused.",
            Phase::Ended => "The sale has ended.",
            // At an edge of the window, the clocks of the node and of Redis may differ by a moment.
            Phase::Active => "The sale is not active at this moment.",
        };
        Self::new(RefusalReason::SaleNotActive, message)
    }

    pub(super) fn invalid_user_id(invalid: &InvalidId) -> Self {
        Self::new(RefusalReason::InvalidUserId, format!("The user id {invalid}."))
    }
}

impl LookupBody {
    pub(super) fn of(claim: Option<Claim>) -> Self {
        Self {
            has_purchased: claim.is_some(),
            purchased_at: claim.map(|claim| iso8601(claim.purchased_at)),
            order_id: claim.map(|claim| claim.order),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.reason {
            RefusalReason::AlreadyPurchased | RefusalReason::OutOfStock => StatusCode::CONFLICT,
            RefusalReason::SaleNotActive => StatusCode::FORBIDDEN,
            RefusalReason::InvalidUserId => StatusCode::BAD_REQUEST,
        };
        (status, Json(self)).into_response()
    }
}

impl IntoResponses for StatusBody {
    fn responses() -> Responses {
        Answers::default()
            .answer::<Self>("The sale", Json(Self::of(&samples::status())))
            .problems([unknown_sale(), unavailable()])
            .into()
    }
}

impl IntoResponses for Purchased {
    fn responses() -> Responses {
        let refused = [
            ("The buyer had a unit already", answer(Outcome::AlreadyPurchased(samples::claim()))),
            ("Every unit is sold", answer(Outcome::OutOfStock)),
            ("The sale is not active", answer(Outcome::NotActive(Phase::Upcoming))),
            (INVALID_USER_ID, Refused::invalid_user_id(&InvalidId::Empty).into_response()),
        ];
        let cross_site = csrf_rejected(BadToken::Missing, samples::csrf_token());
        Answers::default()
            .answer::<Self>("The buyer has a unit", answer(Outcome::Purchased(samples::claim())))
            .variants::<Refused>("reason", refused)
            .problems([cross_site])
            .purchase_problems()
            .problems([busy(), unavailable()])
            .into()
    }
}

impl IntoResponses for LookupBody {
    fn responses() -> Responses {
        let invalid_user = Refused::invalid_user_id(&InvalidId::Empty).into_response();
        Answers::default()
            .answer::<Self>("The user has a unit", Json(Self::of(Some(samples::claim()))))
            .answer::<Self>("The user has none", Json(Self::of(None)))
            .variants::<Refused>("reason", [(INVALID_USER_ID, invalid_user)])
            .lookup_problems()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn read(response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn purchase_returns_order_and_time() {
        let (status, body) = read(answer(Outcome::Purchased(samples::claim()))).await;
        let expected = json!({
            "success": true,
            "message": "One unit is yours.",
            "orderId": "71R7D8J57MH5DF",
            "purchasedAt": "2026-11-21T20:00:00.007Z",
        });
        assert_eq!((status, body), (200, expected));
    }

    #[tokio::test]
    async fn second_purchase_returns_the_first_order() {
        let (status, body) = read(answer(Outcome::AlreadyPurchased(samples::claim()))).await;
        let expected = json!({
            "success": false,
            "reason": "already_purchased",
            "message": "You have bought your unit already.",
            "orderId": "71R7D8J57MH5DF",
            "purchasedAt": "2026-11-21T20:00:00.007Z",
        });
        assert_eq!((status, body), (409, expected));
    }

    #[tokio::test]
    async fn refusals_have_a_reason_and_a_message() {
        let cases = [
            (Outcome::OutOfStock, 409, "out_of_stock", "Every unit is sold."),
            (Outcome::NotActive(Phase::Upcoming), 403, "sale_not_active", "The sale has not started yet."),
            (Outcome::NotActive(Phase::Paused), 403, "sale_not_active", "The sale is paused."),
            (Outcome::NotActive(Phase::Ended), 403, "sale_not_active", "The sale has ended."),
        ];
        for (outcome, status, reason, message) in cases {
            let expected = json!({ "success": false, "reason": reason, "message": message });
            assert_eq!(read(answer(outcome)).await, (status, expected));
        }
    }

    #[tokio::test]
    async fn busy_and_unknown_outcomes_are_503_problems() {
        let (status, busy) = read(answer(Outcome::Busy)).await;
        assert_eq!((status, &busy["type"]), (503, &json!("/problems/busy")));

        let (status, unknown) = read(answer(Outcome::Unknown(samples::claim().order))).await;
        assert_eq!((status, &unknown["type"]), (503, &json!("/problems/unknown-outcome")));
        assert_eq!(unknown["orderId"], "71R7D8J57MH5DF");
        assert!(unknown["detail"].as_str().unwrap().contains("same Idempotency-Key"));
    }

    #[tokio::test]
    async fn full_network_is_a_403_problem() {
        let (status, full) = read(answer(Outcome::NetworkFull)).await;
        assert_eq!((status, &full["type"]), (403, &json!("/problems/network-full")));
    }

    #[tokio::test]
    async fn lookup_contains_the_order_only_if_bought() {
        let held = read(Json(LookupBody::of(Some(samples::claim()))).into_response()).await;
        let expected = json!({
            "hasPurchased": true,
            "orderId": "71R7D8J57MH5DF",
            "purchasedAt": "2026-11-21T20:00:00.007Z",
        });
        assert_eq!(held, (200, expected));
        let none = read(Json(LookupBody::of(None)).into_response()).await;
        assert_eq!(none, (200, json!({ "hasPurchased": false })));
    }
}
