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
use utoipa::{IntoResponses, ToSchema};

use super::caller::{Caller, RequestError};
use super::csrf::{CsrfTokenGuard, MissingCsrfToken, missing_token};
use super::openapi::{Answers, INVALID_USER_ID, IdempotencyKey, PURCHASE, Responses, samples, schemas};
use super::problems::{
    RETRY_AFTER, lookup_failed, network_full, order_not_found, other_user, too_many_requests, unavailable,
    unknown_outcome, unknown_sale,
};
use super::request::{PurchaseRequest, SalePath};
use super::state::{AppState, SaleLookupError};
use crate::csrf::BadToken;
use crate::sales::{Outcome, Phase, Status};

/// Name of this family in the description of the API.
pub(super) const TAG: &str = "single sale";

/// Shortest user id that clients of this family expect to be accepted, in characters.
const USER_ID_CHARS_MIN: usize = 3;

/// Status of the sale.
///
/// From memory, at most a fraction of a second old. A paused sale is `upcoming` here.
#[utoipa::path(get, path = "/api/status", tag = TAG, responses(StatusBody))]
pub(crate) async fn status(State(state): State<Arc<AppState>>) -> Result<Json<StatusBody>, Problem> {
    let sale = state.sale(None).await?;
    Ok(Json(StatusBody::of(&sale.status())))
}

/// Buys one unit.
#[utoipa::path(
    post,
    path = "/api/purchase",
    tag = TAG,
    description = PURCHASE,
    params(
        IdempotencyKey,
        ("X-CSRF-Token" = schemas::CsrfToken, Header, description = "The same token as in the cookie."),
        ("csrfToken" = schemas::CsrfToken, Cookie, description = "The token from `GET /api/csrf`."),
    ),
    request_body(content = schemas::SingleSalePurchase, description = "Other members are ignored."),
    responses(PurchaseResult),
    security((), ("bearer" = []))
)]
pub(crate) async fn purchase(
    State(state): State<Arc<AppState>>,
    _: CsrfTokenGuard,
    caller: Caller,
    request: PurchaseRequest,
) -> Result<Response, Problem> {
    let sale = match state.sale(None).await {
        Err(SaleLookupError::Unavailable) => return Ok(BUSY.into_response()),
        sale => sale?,
    };
    let client = request.client;
    match state.attempt(request, &sale.config(), &caller).await {
        Ok(attempt) if is_long_enough(&attempt.user) => {
            Ok(answer(state.purchase(&sale, attempt, client).await))
        }
        Err(RequestError::OtherUser) => Err(other_user()),
        Err(RequestError::Limited(limited)) => Err(too_many_requests(limited)),
        Ok(_) | Err(RequestError::InvalidId(_)) => Ok(INVALID_USER.into_response()),
    }
}

/// Looks up a purchase.
///
/// Asks the user's home shard.
#[utoipa::path(
    get,
    path = "/api/purchase/{userId}",
    tag = TAG,
    params(("userId" = schemas::LongUserId, Path, description = "Id of the user.")),
    responses(LookupBody),
    security((), ("bearer" = []))
)]
pub(crate) async fn find(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    path: SalePath,
) -> Result<Response, Problem> {
    let sale = state.sale(None).await?;
    match caller.user(&path.user, sale.config().user_ids) {
        Ok(user) if is_long_enough(&user) => {
            let claim = sale.find(user).await.map_err(lookup_failed)?;
            Ok(Json(LookupBody::of(claim)).into_response())
        }
        Err(RequestError::OtherUser) => Err(order_not_found()),
        Err(RequestError::Limited(limited)) => Err(too_many_requests(limited)),
        Ok(_) | Err(RequestError::InvalidId(_)) => Ok(INVALID_USER.into_response()),
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

const BUSY: Busy = Busy { status: "busy", retry_after_ms: RETRY_AFTER.as_millis() as u64 };

/// The user id is invalid.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct InvalidUser {
    #[schema(pattern = "^invalid_user$")]
    error: &'static str,
}

const INVALID_USER: InvalidUser = InvalidUser { error: "invalid_user" };

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

/// Returns the response to a purchase.
fn answer(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Purchased(claim) => PurchaseResultCode::Purchased.with(Some(claim)),
        Outcome::AlreadyPurchased(claim) => PurchaseResultCode::AlreadyPurchased.with(Some(claim)),
        Outcome::OutOfStock => PurchaseResultCode::SoldOut.with(None),
        Outcome::NotActive(_) => PurchaseResultCode::NotActive.with(None),
        Outcome::Busy => BUSY.into_response(),
        Outcome::NetworkFull => network_full().into_response(),
        Outcome::Unknown(order) => unknown_outcome(order).into_response(),
    }
}

impl PurchaseResultCode {
    fn with(self, claim: Option<Claim>) -> Response {
        let status = match self {
            Self::Purchased => StatusCode::OK,
            Self::AlreadyPurchased => StatusCode::CONFLICT,
            Self::SoldOut => StatusCode::GONE,
            Self::NotActive => StatusCode::FORBIDDEN,
        };
        let result = PurchaseResult { status: self, order_id: claim.map(|claim| claim.order) };
        (status, Json(result)).into_response()
    }
}

impl LookupBody {
    pub(super) fn of(claim: Option<Claim>) -> Self {
        Self { purchased: claim.is_some(), order_id: claim.map(|claim| claim.order) }
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

impl IntoResponses for StatusBody {
    fn responses() -> Responses {
        Answers::default()
            .answer::<Self>("The sale", Json(Self::of(&samples::status())))
            .problems([unknown_sale(), unavailable()])
            .into()
    }
}

impl IntoResponses for PurchaseResult {
    fn responses() -> Responses {
        let settled = [
            ("The buyer has a unit", answer(Outcome::Purchased(samples::claim()))),
            ("The buyer had a unit already", answer(Outcome::AlreadyPurchased(samples::claim()))),
            ("Every unit is sold", answer(Outcome::OutOfStock)),
            ("The sale is not active", answer(Outcome::NotActive(Phase::Upcoming))),
        ];
        Answers::default()
            .variants::<Self>("status", settled)
            .answer::<Busy>("Too many buyers are waiting", answer(Outcome::Busy))
            .answer::<InvalidUser>(INVALID_USER_ID, INVALID_USER)
            .answer::<MissingCsrfToken>(
                "The token is missing or invalid; the response contains a new one",
                missing_token(BadToken::Missing, samples::csrf_token()),
            )
            .purchase_problems()
            .into()
    }
}

impl IntoResponses for LookupBody {
    fn responses() -> Responses {
        Answers::default()
            .answer::<Self>("The user has a unit", Json(Self::of(Some(samples::claim()))))
            .answer::<Self>("The user has none", Json(Self::of(None)))
            .answer::<InvalidUser>(INVALID_USER_ID, INVALID_USER)
            .lookup_problems()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stock::ids::UserIdKind;

    use super::*;

    async fn read(response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn outcomes_map_to_statuses() {
        let cases = [
            (
                Outcome::Purchased(samples::claim()),
                200,
                json!({ "status": "purchased", "orderId": "71R7D8J57MH5DF" }),
            ),
            (
                Outcome::AlreadyPurchased(samples::claim()),
                409,
                json!({ "status": "already_purchased", "orderId": "71R7D8J57MH5DF" }),
            ),
            (Outcome::OutOfStock, 410, json!({ "status": "sold_out" })),
            (Outcome::NotActive(Phase::Upcoming), 403, json!({ "status": "not_active" })),
            (Outcome::NotActive(Phase::Paused), 403, json!({ "status": "not_active" })),
            (Outcome::Busy, 503, json!({ "status": "busy", "retryAfterMs": 1000 })),
        ];
        for (outcome, status, body) in cases {
            assert_eq!(read(answer(outcome)).await, (status, body));
        }
    }

    #[tokio::test]
    async fn busy_response_has_a_retry_after_header() {
        let busy = answer(Outcome::Busy);
        assert_eq!(busy.headers()[RETRY_AFTER_HEADER], "1");
        let (status, unknown) = read(answer(Outcome::Unknown(samples::claim().order))).await;
        assert_eq!((status, &unknown["orderId"]), (503, &json!("71R7D8J57MH5DF")));
    }

    #[tokio::test]
    async fn lookup_always_contains_an_order_id_or_null() {
        let held = read(Json(LookupBody::of(Some(samples::claim()))).into_response()).await;
        assert_eq!(held, (200, json!({ "purchased": true, "orderId": "71R7D8J57MH5DF" })));
        let none = read(Json(LookupBody::of(None)).into_response()).await;
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
