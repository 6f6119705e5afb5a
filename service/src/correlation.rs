//! Correlation ids: they follow a request from the client's own logs to the order in the stream.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use stock::ids::CorrelationId;

/// The header that carries the correlation id, in requests and responses.
pub const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The correlation id of the request that a handler answers.
pub struct Correlation(pub CorrelationId);

impl<S: Sync> FromRequestParts<S> for Correlation {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().cloned().unwrap_or_else(CorrelationId::random)))
    }
}

/// Returns the id that the client sent, or a random one if it sent none that is valid in logs and headers.
pub(crate) fn from_headers(request: &HeaderMap) -> CorrelationId {
    let sent = request.get(X_CORRELATION_ID).and_then(|value| value.to_str().ok());
    sent.and_then(|id| id.parse().ok()).unwrap_or_else(CorrelationId::random)
}

pub(crate) fn echo(correlation: &CorrelationId, response: &mut HeaderMap) {
    let value = HeaderValue::from_str(correlation.as_str()).expect("a correlation id is visible ASCII");
    response.insert(X_CORRELATION_ID, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(X_CORRELATION_ID, HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn invalid_correlation_ids_are_replaced() {
        assert_eq!(from_headers(&sent(b"trace-1")).as_str(), "trace-1");
        for unfit in [&b""[..], b"a b", "\u{e9}".as_bytes(), b"\xff", &[b'a'; 65]] {
            assert_ne!(from_headers(&sent(unfit)).as_str().as_bytes(), unfit);
        }
        assert_ne!(from_headers(&HeaderMap::new()), from_headers(&HeaderMap::new()));
    }
}
