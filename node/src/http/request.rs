//! Contents of requests, parsed into domain types.
//!
//! Only the sale knows the kind of its user ids, so a user id stays raw until the sale is known.

use std::borrow::Cow;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;
use service::correlation::{Correlation, CorrelationId};
use service::json::JsonBody;
use service::problem::Problem;
use stock::calls::Attempt;
use stock::ids::{IDEMPOTENCY_KEY_BYTES_MAX, InvalidId, OrderId, SaleId, UserId, UserIdKind};
use stock::sale::SaleConfig;

use super::caller::{Caller, RequestError};
use super::client::Client;
use super::problems::{invalid_idempotency_key, unknown_sale};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A user id as it was sent.
pub(crate) enum RawUserId {
    /// The request has none.
    Absent,
    /// The user id is not a string.
    NotText,
    /// The string that was sent.
    Text(String),
}

impl RawUserId {
    /// Parses the user id as this kind.
    pub(crate) fn parse(&self, kind: UserIdKind) -> Result<UserId, InvalidId> {
        match self {
            Self::Text(raw) => UserId::parse(raw, kind),
            Self::Absent => Err(InvalidId::Missing),
            Self::NotText => Err(InvalidId::Malformed("a string")),
        }
    }
}

/// Parameters of the path.
pub(crate) struct SalePath {
    /// `None` means the default sale.
    pub(crate) sale: Option<SaleId>,
    pub(crate) user: RawUserId,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PathParameters {
    sale: Option<String>,
    user_id: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for SalePath {
    type Rejection = Problem;

    /// An invalid sale id is treated like an unknown sale.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = match Path::<PathParameters>::from_request_parts(parts, state).await {
            Ok(Path(parameters)) => parameters,
            Err(rejection) if is_user_id_not_utf8(&rejection) => {
                return Ok(Self { sale: None, user: RawUserId::NotText });
            }
            Err(_) => return Err(unknown_sale()),
        };
        let sale = parameters.sale.map(|id| id.parse()).transpose().map_err(|_: InvalidId| unknown_sale())?;
        Ok(Self { sale, user: parameters.user_id.map_or(RawUserId::Absent, RawUserId::Text) })
    }
}

fn is_user_id_not_utf8(rejection: &PathRejection) -> bool {
    let PathRejection::FailedToDeserializePathParams(failure) = rejection else { return false };
    matches!(failure.kind(), ErrorKind::InvalidUtf8InPathParam { key } if key == "userId")
}

/// A request to buy.
pub(crate) struct PurchaseRequest {
    user: RawUserId,
    idempotency_key: Option<String>,
    correlation: CorrelationId,
    /// `None` in tests without a connection.
    pub(super) client: Option<Client>,
}

impl PurchaseRequest {
    /// Returns the purchase attempt that this request makes.
    pub(crate) fn attempt(self, sale: &SaleConfig, caller: &Caller) -> Result<Attempt, RequestError> {
        let user = caller.user(&self.user, sale.user_ids)?;
        let order = match &self.idempotency_key {
            Some(key) => sale.order_id(&user, key),
            None => OrderId::random(),
        };
        Ok(Attempt { user, order, correlation: self.correlation.as_str().into() })
    }
}

impl<S: Send + Sync> FromRequest<S> for PurchaseRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let idempotency_key = idempotency_key(&parts.headers)?;
        let client = parts.extensions.get().copied();
        let Ok(Correlation(correlation)) = Correlation::from_request_parts(&mut parts, state).await;
        let document = JsonBody::from_request(Request::from_parts(parts, body), state).await?;
        Ok(Self { user: user_id_in(&document)?, idempotency_key, correlation, client })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PurchaseBody<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
}

/// A user id that is not a string is not a malformed body: clients expect the response for an invalid user id.
fn user_id_in(document: &JsonBody) -> Result<RawUserId, Problem> {
    let PurchaseBody { user_id } = document.parse()?;
    let Some(value) = user_id else { return Ok(RawUserId::Absent) };
    let text = serde_json::from_str::<Cow<'_, str>>(value.get());
    Ok(text.map_or(RawUserId::NotText, |text| RawUserId::Text(text.into_owned())))
}

/// Returns the client's key for the attempt. A client that repeats the attempt sends it again.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    // nginx does not distinguish an empty header from a missing one, so a node must not either.
    if value.is_empty() {
        return Ok(None);
    }
    let is_valid = |key: &&str| {
        key.len() <= IDEMPOTENCY_KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let key = value.to_str().ok().filter(is_valid).ok_or_else(invalid_idempotency_key)?;
    Ok(Some(key.to_owned()))
}
