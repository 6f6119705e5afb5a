//! Cross-origin resource sharing (CORS): requests that pages of other sites may make.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method};
use service::correlation::{CORRELATION_ID, X_CORRELATION_ID};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::csrf::X_CSRF_TOKEN;
use super::problems::{RATELIMIT_LIMIT, RATELIMIT_POLICY, RATELIMIT_REMAINING, RATELIMIT_RESET};
use super::request::IDEMPOTENCY_KEY;
use crate::settings::Origin;

/// Time for which a browser may cache a preflight response.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_mins(10);

/// Returns the CORS layer for these origins, or `None` when there are no origins.
pub(crate) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            CONTENT_TYPE,
            AUTHORIZATION,
            X_CSRF_TOKEN,
            IDEMPOTENCY_KEY,
            X_CORRELATION_ID,
            CORRELATION_ID,
        ])
        .expose_headers([
            X_CORRELATION_ID,
            CORRELATION_ID,
            RETRY_AFTER,
            RATELIMIT_LIMIT,
            RATELIMIT_REMAINING,
            RATELIMIT_RESET,
            RATELIMIT_POLICY,
        ])
        .max_age(PREFLIGHT_MAX_AGE);
    if origins.contains(&Origin::Any) {
        return Some(layer.allow_origin(AllowOrigin::any()));
    }
    let named = origins.iter().filter_map(|origin| match origin {
        Origin::Exact(origin) => HeaderValue::from_str(origin).ok(),
        Origin::Any => None,
    });
    Some(layer.allow_origin(AllowOrigin::list(named)).allow_credentials(true))
}
