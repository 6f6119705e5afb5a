//! Bodies and headers that operators send.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;
use service::problem::Problem;
use service::settings::TimeSetting;
use sha2::{Digest, Sha256};
use stock::ids::{IDEMPOTENCY_KEY_BYTES_MAX, UserIdKind};
use stock::sale::Product;

use super::problems::invalid_member;
use crate::new_sale::{Field, NewSale};

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
    product_price: f64,
    #[serde(default)]
    product_description: String,
    #[serde(default)]
    user_ids: UserIdKind,
    shards: Option<u16>,
}

/// `POST …/extend`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Extension {
    ends_at: Time,
}

/// `POST …/restock`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RestockRequest {
    pub(super) units: u64,
}

/// A time as text, or as a number of seconds or milliseconds since 1970.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Number(u64),
    Text(String),
}

impl NewSaleRequest {
    pub(super) fn read(self) -> Result<NewSale, Problem> {
        let Self { product_name: name, product_price: price, product_description: description, .. } = self;
        Ok(NewSale {
            id: self.id.parse().map_err(|error| invalid_member("id", &error))?,
            total_stock: self.total_stock,
            starts_at: self.starts_at.read(Field::StartsAt)?,
            ends_at: self.ends_at.read(Field::EndsAt)?,
            product: Product { name, price, description },
            user_ids: self.user_ids,
            shards: self.shards,
        })
    }
}

impl Extension {
    pub(super) fn read(self) -> Result<TimeSetting, Problem> {
        self.ends_at.read(Field::EndsAt)
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
