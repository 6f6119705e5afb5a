//! The single-sale endpoints: `/api/status` and `/api/purchase`, for clients that know a single sale.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER as RETRY_AFTER_HEADER;
use axum::response::{IntoResponse, Response};
use rediscluster::EpochMs;
use serde::Serialize;
use service::problem::{Problem, retry_after};
use stock::calls::Claim;
use stock::ids::{OrderId, SaleId, UserId};
use utoipa::ToSchema;

use super::caller::{Caller, RequestError};
use super::csrf::CsrfTokenGuard;
use super::openapi::schemas;
use super::problems::{
    RETRY_AFTER, order_not_found, other_user, too_many_requests, unavailable, unknown_outcome,
};
use super::request::{PurchaseRequest, SalePath};
use super::state::{AppState, SaleLookupError};
use crate::sales::{Outcome, Phase, Status};

/// Shortest user id that clients of this family expect to be accepted, in characters.
const USER_ID_CHARS_MIN: usize = 3;

/// `GET status`
pub(crate) async fn status(State(state): State<Arc<AppState>>) -> Result<Json<StatusBody>, Problem> {
    let sale = state.sale(None).await?;
    Ok(Json(StatusBody::of(&sale.status())))
}

/// `POST purchase`
pub(crate) async fn purchase(
    State(state): State<Arc<AppState>>,
    _: CsrfTokenGuard,
    caller: Caller,
    request: PurchaseRequest,
) -> Result<PurchaseAnswer, Problem> {
    let sale = match state.sale(None).await {
        Err(SaleLookupError::Unavailable) => return Ok(PurchaseAnswer::Busy(Busy::default())),
        sale => sale?,
    };
    match request.attempt(&sale.config(), &caller) {
        Ok(attempt) if is_long_enough(&attempt.user) => {
            PurchaseAnswer::to(state.purchase(&sale, attempt).await)
        }
        Err(RequestError::OtherUser) => Err(other_user()),
        Ok(_) | Err(RequestError::InvalidId(_)) => Ok(PurchaseAnswer::InvalidUser(InvalidUser::default())),
    }
}

/// `GET purchase/{userId}`
pub(crate) async fn find(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    path: SalePath,
) -> Result<LookupAnswer, Problem> {
    let sale = state.sale(None).await?;
    match caller.user(&path.user, sale.config().user_ids) {
        Ok(user) if is_long_enough(&user) => {
            Ok(LookupAnswer::LookupBody(LookupBody::of(sale.find(user).await.map_err(|_| unavailable())?)))
        }
        Err(RequestError::OtherUser) => Err(order_not_found()),
        Ok(_) | Err(RequestError::InvalidId(_)) => Ok(LookupAnswer::InvalidUser(InvalidUser::default())),
    }
}

fn is_long_enough(user: &UserId) -> bool {
    user.as_str().chars().take(USER_ID_CHARS_MIN).count() == USER_ID_CHARS_MIN
}

/// Public status of the sale.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SingleSaleStatus)]
pub(crate) struct StatusBody {
    status: SaleStatusCode,
    #[schema(value_type = u64, examples(1_795_291_200_000_u64))]
    starts_at: EpochMs,
    #[schema(value_type = u64, examples(1_795_294_800_000_u64))]
    ends_at: EpochMs,
    stock: u64,
    sold: u64,
    #[schema(value_type = schemas::SaleId)]
    product_id: SaleId,
    product_description: String,
}

/// Phase of the sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SingleSaleStatusWord)]
enum SaleStatusCode {
    Upcoming,
    Active,
    SoldOut,
    Ended,
}

/// Answer to a purchase.
pub(crate) enum PurchaseAnswer {
    /// 200, 403, 409 or 410
    PurchaseResult(PurchaseResult),
    /// 503
    Busy(Busy),
    /// 422
    InvalidUser(InvalidUser),
}

/// Result of a purchase.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseResult {
    status: PurchaseResultCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schemas::OrderId, required = false)]
    order_id: Option<OrderId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PurchaseResultCode {
    Purchased,
    AlreadyPurchased,
    SoldOut,
    NotActive,
}

/// This request bought nothing. The client should retry.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Busy {
    #[schema(pattern = "^busy$")]
    status: &'static str,
    retry_after_ms: u64,
}

/// The user id is invalid.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct InvalidUser {
    #[schema(pattern = "^invalid_user$")]
    error: &'static str,
}

/// Answer to a lookup.
pub(crate) enum LookupAnswer {
    /// 200
    LookupBody(LookupBody),
    /// 422
    InvalidUser(InvalidUser),
}

/// Tells if a user has a unit.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SingleSaleFound)]
pub(crate) struct LookupBody {
    purchased: bool,
    /// Null when the user has none.
    #[schema(value_type = Option<schemas::OrderId>, required = true)]
    order_id: Option<OrderId>,
}

impl StatusBody {
    pub(super) fn of(status: &Status) -> Self {
        let config = &status.config;
        Self {
            status: SaleStatusCode::of(status),
            starts_at: config.window.starts_at,
            ends_at: config.window.ends_at,
            stock: config.total_stock.saturating_sub(status.sold),
            sold: status.sold,
            product_id: config.id.clone(),
            product_description: config.product.description.clone(),
        }
    }
}

impl SaleStatusCode {
    fn of(status: &Status) -> Self {
        match status.phase {
            Phase::Ended => Self::Ended,
            _ if status.sold_out => Self::SoldOut,
            Phase::Active => Self::Active,
            // These clients do not know a paused sale. They treat an upcoming sale as a paused one should be treated:
            // they wait and ask again.
            Phase::Upcoming | Phase::Paused => Self::Upcoming,
        }
    }
}

impl PurchaseAnswer {
    pub(super) fn to(outcome: Outcome) -> Result<Self, Problem> {
        match outcome {
            Outcome::Purchased(claim) => {
                Ok(Self::PurchaseResult(PurchaseResult::with(PurchaseResultCode::Purchased, claim)))
            }
            Outcome::AlreadyPurchased(claim) => {
                Ok(Self::PurchaseResult(PurchaseResult::with(PurchaseResultCode::AlreadyPurchased, claim)))
            }
            Outcome::OutOfStock => {
                Ok(Self::PurchaseResult(PurchaseResult::without(PurchaseResultCode::SoldOut)))
            }
            Outcome::NotActive(_) => {
                Ok(Self::PurchaseResult(PurchaseResult::without(PurchaseResultCode::NotActive)))
            }
            Outcome::Limited(limited) => Err(too_many_requests(limited)),
            Outcome::Busy => Ok(Self::Busy(Busy::default())),
            Outcome::Unknown(order) => Err(unknown_outcome(order)),
        }
    }
}

impl PurchaseResult {
    fn with(status: PurchaseResultCode, claim: Claim) -> Self {
        Self { status, order_id: Some(claim.order) }
    }

    fn without(status: PurchaseResultCode) -> Self {
        Self { status, order_id: None }
    }
}

impl PurchaseResultCode {
    fn status(self) -> StatusCode {
        match self {
            Self::Purchased => StatusCode::OK,
            Self::AlreadyPurchased => StatusCode::CONFLICT,
            Self::SoldOut => StatusCode::GONE,
            Self::NotActive => StatusCode::FORBIDDEN,
        }
    }
}

impl Default for Busy {
    fn default() -> Self {
        Self { status: "busy", retry_after_ms: RETRY_AFTER.as_millis() as u64 }
    }
}

impl Default for InvalidUser {
    fn default() -> Self {
        Self { error: "invalid_user" }
    }
}

impl LookupBody {
    pub(super) fn of(claim: Option<Claim>) -> Self {
        Self { purchased: claim.is_some(), order_id: claim.map(|claim| claim.order) }
    }
}

impl IntoResponse for PurchaseAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::PurchaseResult(settled) => (settled.status.status(), Json(settled)).into_response(),
            Self::Busy(busy) => busy.into_response(),
            Self::InvalidUser(invalid) => invalid.into_response(),
        }
    }
}

impl IntoResponse for LookupAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::LookupBody(found) => Json(found).into_response(),
            Self::InvalidUser(invalid) => invalid.into_response(),
        }
    }
}

impl IntoResponse for Busy {
    fn into_response(self) -> Response {
        let retry_later = [(RETRY_AFTER_HEADER, retry_after(RETRY_AFTER))];
        (StatusCode::SERVICE_UNAVAILABLE, retry_later, Json(self)).into_response()
    }
}

impl IntoResponse for InvalidUser {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stock::ids::UserIdKind;

    use super::*;

    fn claim() -> Claim {
        Claim { order: "0123456789ABCD".parse().unwrap(), purchased_at: 1 }
    }

    async fn answer(answer: impl IntoResponse) -> (u16, Value) {
        let response = answer.into_response();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn outcomes_map_to_statuses() {
        let cases = [
            (Outcome::Purchased(claim()), 200, json!({ "status": "purchased", "orderId": "0123456789ABCD" })),
            (
                Outcome::AlreadyPurchased(claim()),
                409,
                json!({ "status": "already_purchased", "orderId": "0123456789ABCD" }),
            ),
            (Outcome::OutOfStock, 410, json!({ "status": "sold_out" })),
            (Outcome::NotActive(Phase::Upcoming), 403, json!({ "status": "not_active" })),
            (Outcome::NotActive(Phase::Paused), 403, json!({ "status": "not_active" })),
            (Outcome::Busy, 503, json!({ "status": "busy", "retryAfterMs": 1000 })),
        ];
        for (outcome, status, body) in cases {
            assert_eq!(answer(PurchaseAnswer::to(outcome)).await, (status, body));
        }
    }

    #[tokio::test]
    async fn busy_response_has_a_retry_after_header() {
        let busy = PurchaseAnswer::to(Outcome::Busy).into_response();
        assert_eq!(busy.headers()[RETRY_AFTER_HEADER], "1");
        let (status, unknown) = answer(PurchaseAnswer::to(Outcome::Unknown(claim().order))).await;
        assert_eq!((status, &unknown["orderId"]), (503, &json!("0123456789ABCD")));
    }

    #[tokio::test]
    async fn lookup_always_contains_an_order_id_or_null() {
        let held = answer(LookupAnswer::LookupBody(LookupBody::of(Some(claim())))).await;
        assert_eq!(held, (200, json!({ "purchased": true, "orderId": "0123456789ABCD" })));
        let none = answer(LookupAnswer::LookupBody(LookupBody::of(None))).await;
        assert_eq!(none, (200, json!({ "purchased": false, "orderId": null })));
    }

    #[test]
    fn user_id_needs_three_characters_not_bytes() {
        let user = |id| UserId::parse(id, UserIdKind::Opaque).unwrap();
        for (id, is_enough) in
            [("ab", false), ("\u{1f980}\u{1f980}", false), ("abc", true), ("\u{e4}\u{f6}\u{fc}", true)]
        {
            assert_eq!(is_long_enough(&user(id)), is_enough, "{id}");
        }
    }
}
