//! Bodies and headers that operators send.

use std::convert::Infallible;

use axum::body::HttpBody as _;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use service::json::JsonBody;
use service::operators::RequestOrigin;
use service::problem::Problem;
use service::settings::TimeSetting;
use sha2::{Digest, Sha256};
use stock::history::ChangeOrigin;
use stock::ids::{IDEMPOTENCY_KEY_BYTES_MAX, UserIdKind};
use stock::sale::{Product, SaleStage};

use super::problems::invalid_member;
use crate::new_sale::{Field, NewSale, price};
use crate::operations::ListQuery;

/// Longest reason of a change. It is stored with the sale.
const REASON_BYTES_MAX: usize = 500;

/// Most sales in a page of the list.
const LIST_LIMIT_MAX: usize = 1_000;
/// The same if the request names no number.
const LIST_LIMIT_DEFAULT: usize = 100;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /admin/sales`. Unknown members are refused: a misspelled one would otherwise be missing from the sale.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewSaleRequest {
    id: String,
    total_stock: u64,
    starts_at: Time,
    ends_at: Time,
    product_name: String,
    product_price: Box<RawValue>,
    #[serde(default)]
    product_description: String,
    #[serde(default)]
    user_ids: UserIdKind,
    shards: Option<u16>,
    reason: Option<String>,
}

/// The query of `GET /admin/sales`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    state: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// `POST …/extend`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Extension {
    ends_at: Time,
    reason: Option<String>,
}

/// `POST …/restock`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RestockRequest {
    pub(super) units: u64,
    pub(super) reason: Option<String>,
}

/// `POST …/archive`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ArchiveRequest {
    /// True if the orders were taken out of Redis without a ledger.
    #[serde(default)]
    pub(super) orders_exported: bool,
    pub(super) reason: Option<String>,
}

/// `POST …/pause`, `…/resume` and `…/end`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReasonRequest {
    pub(super) reason: Option<String>,
}

/// A time as text, or as a number of seconds or milliseconds since 1970.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a time: text, or a number since 1970")]
enum Time {
    Number(u64),
    Text(String),
}

impl NewSaleRequest {
    /// Returns the sale, and the reason for its creation.
    pub(super) fn read(self) -> Result<(NewSale, Option<String>), Problem> {
        let Self { product_name: name, product_description: description, .. } = self;
        let price = price(self.product_price.get())
            .map_err(|error| invalid_member(Field::ProductPrice.member(), &error))?;
        let sale = NewSale {
            id: self.id.parse().map_err(|error| invalid_member("id", &error))?,
            total_stock: self.total_stock,
            starts_at: self.starts_at.read(Field::StartsAt)?,
            ends_at: self.ends_at.read(Field::EndsAt)?,
            product: Product { name, price, description },
            user_ids: self.user_ids,
            shards: self.shards,
        };
        Ok((sale, self.reason))
    }
}

impl Extension {
    /// Returns the new end, and the reason.
    pub(super) fn read(self) -> Result<(TimeSetting, Option<String>), Problem> {
        Ok((self.ends_at.read(Field::EndsAt)?, self.reason))
    }
}

/// Extracts which sales to list.
pub(super) struct SaleListQuery(pub(super) ListQuery);

impl<S: Sync> FromRequestParts<S> for SaleListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(ListParameters { state, limit, after }) = Query::try_from_uri(&parts.uri)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST).detail(error.body_text()))?;
        let words = state.iter().flat_map(|words| words.split(','));
        let stages: Option<Vec<SaleStage>> = words.map(SaleStage::parse).collect();
        let limit = limit.map_or(Some(LIST_LIMIT_DEFAULT), |limit| {
            limit.parse().ok().filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
        });
        Ok(Self(ListQuery {
            stages: stages.ok_or_else(|| {
                let words = SaleStage::ALL.map(SaleStage::as_str).join(", ");
                invalid_member("state", &format!("must be some of {words}, separated by commas"))
            })?,
            limit: limit.ok_or_else(|| {
                invalid_member("limit", &format!("must be a number from 1 to {LIST_LIMIT_MAX}"))
            })?,
            after: after.map(|id| id.parse().map_err(|error| invalid_member("after", &error))).transpose()?,
        }))
    }
}

/// Extracts the origin of a change from the request that the operators' guard has admitted.
pub(super) struct Origin(pub(super) ChangeOrigin);

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let origin =
            parts.extensions.get().map(|RequestOrigin { operator, address, correlation }| ChangeOrigin {
                operator: Some(operator.name.to_string()),
                address: address.map(|address| address.to_string()),
                correlation_id: Some(correlation.to_string()),
                reason: None,
            });
        Ok(Self(origin.unwrap_or_default()))
    }
}

/// Returns the origin with the reason that the operator gave.
pub(super) fn because(origin: ChangeOrigin, reason: Option<String>) -> Result<ChangeOrigin, Problem> {
    let is_invalid =
        |reason: &String| reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control);
    if reason.as_ref().is_some_and(is_invalid) {
        let rule = format!("must be at most {REASON_BYTES_MAX} bytes without control characters");
        return Err(invalid_member("reason", &rule));
    }
    Ok(ChangeOrigin { reason: reason.filter(|reason| !reason.is_empty()), ..origin })
}

/// Extracts a body that may be missing.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<S: Sync, T: Default + DeserializeOwned> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.body().size_hint().exact() == Some(0) {
            return Ok(Self(T::default()));
        }
        JsonBody::from_request(request, state).await?.parse().map(Self)
    }
}

impl Time {
    fn read(self, field: Field) -> Result<TimeSetting, Problem> {
        let text = match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        };
        text.parse().map_err(|error| invalid_member(field.member(), &error))
    }
}

/// Identifies a restock: a digest of its `Idempotency-Key`, or a random value if it has none. The random value
/// distinguishes this coordinator's own retries from other restocks.
pub(super) struct RestockKey(pub(super) String);

impl<S: Sync> FromRequestParts<S> for RestockKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(key) = parts.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(Self(format!("{:016x}", rand::random::<u64>())));
        };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let detail = format!("Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes long.");
            return Err(Problem::new(StatusCode::BAD_REQUEST).detail(detail));
        }
        let digest = Sha256::digest(key);
        Ok(Self(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}
