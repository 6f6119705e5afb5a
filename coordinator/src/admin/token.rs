//! The bearer token of the admin API.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use service::problem::Problem;
use sha2::{Digest, Sha256};

/// Minimum length of a token: 64 bits as random hexadecimal digits.
const TOKEN_CHARS_MIN: usize = 16;

/// The bearer token that operators must send. Only its digest is stored: the duration of comparing digests reveals
/// nothing about the token.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken([u8; 32]);

/// The value is not a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be at least {TOKEN_CHARS_MIN} visible ASCII characters")]
pub struct InvalidToken;

impl AdminToken {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl FromStr for AdminToken {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        let is_valid = token.len() >= TOKEN_CHARS_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self::of(token)).ok_or(InvalidToken)
    }
}

/// Admits only requests with the right token.
pub(super) async fn require(State(token): State<Arc<AdminToken>>, request: Request, next: Next) -> Response {
    if presented_token(request.headers())
        .is_some_and(|presented_token| AdminToken::of(presented_token) == *token)
    {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED).detail("The admin API needs its bearer token.");
    ([(WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

fn presented_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_must_be_long_visible_ascii() {
        assert!("0123456789abcdef".parse::<AdminToken>().is_ok());
        for unfit in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcd\u{e9}"] {
            assert!(unfit.parse::<AdminToken>().is_err(), "{unfit:?} was taken");
        }
    }
}
