//! Correlation ids: they follow a request from the client's own logs to the order in the stream.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the correlation id, in requests and responses.
pub const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Another name of [`X_CORRELATION_ID`], which some clients send. It is sent back if it came.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");

/// Longest correlation id in bytes. It is stored with each order. 64 bytes hold a UUID or a W3C trace id.
const BYTES_MAX: usize = 64;

/// Id that links a request, its log lines and its order: visible ASCII, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelationId(Box<str>);

impl CorrelationId {
    /// Returns the id that a client sent, or `None` when it is not safe in headers and logs.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        let is_safe = (1..=BYTES_MAX).contains(&raw.len()) && raw.bytes().all(|byte| byte.is_ascii_graphic());
        is_safe.then(|| Self(raw.into()))
    }

    /// Creates an id for a request that has none.
    pub(crate) fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let random: u64 = rand::random();
        let digit = |place: u32| char::from(DIGITS[(random >> (4 * place)) as usize % DIGITS.len()]);
        Self((0..u64::BITS / 4).map(digit).collect::<String>().into())
    }

    /// Returns the id as it is echoed and stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    let sent = |name| request.get(name).and_then(|value| CorrelationId::parse(value.to_str().ok()?));
    sent(X_CORRELATION_ID).or_else(|| sent(CORRELATION_ID)).unwrap_or_else(CorrelationId::random)
}

/// Adds the id to a response, also under its other name if `uses_other_name`.
pub(crate) fn echo(correlation: &CorrelationId, uses_other_name: bool, response: &mut HeaderMap) {
    let value = HeaderValue::from_str(correlation.as_str()).expect("a correlation id is visible ASCII");
    if uses_other_name {
        response.insert(CORRELATION_ID, value.clone());
    }
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
        for fit in ["trace-1", "4bf92f3577b34da6a3ce929d0e0e4736", &"a".repeat(64)] {
            assert_eq!(from_headers(&sent(fit.as_bytes())).as_str(), fit);
        }
        for unfit in [&b""[..], b"a b", b"a\tb", "\u{e9}".as_bytes(), b"\xff", &[b'a'; 65]] {
            assert_ne!(from_headers(&sent(unfit)).as_str().as_bytes(), unfit);
        }
        assert_ne!(from_headers(&HeaderMap::new()), from_headers(&HeaderMap::new()));
    }
}
