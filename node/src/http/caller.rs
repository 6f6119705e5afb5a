//! The caller of a request, and the check that the request is about that caller.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use service::problem::Problem;
use stock::ids::{InvalidId, UserId, UserIdKind};

use super::AppState;
use super::problems::unauthenticated;
use super::request::RawUserId;
use crate::identity::{BearerTokenError, Identity};
use crate::limits::RateLimited;

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Not authenticated: the request names its user itself.
    Unverified,
    /// The user that a signed token names.
    Verified(String),
}

/// Reasons why the user of a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// The user id is invalid.
    InvalidId(InvalidId),
    /// The request is about another user than the token.
    OtherUser,
    /// The user made too many attempts.
    Limited(RateLimited),
}

impl From<InvalidId> for RequestError {
    fn from(invalid: InvalidId) -> Self {
        Self::InvalidId(invalid)
    }
}

impl Caller {
    /// Returns the caller of a request with these headers.
    ///
    /// # Errors
    /// Fails when a token is required and is missing or invalid.
    pub(super) fn identify(identity: &Identity, headers: &HeaderMap) -> Result<Self, Problem> {
        let Identity::FromToken(tokens) = identity else { return Ok(Self::Unverified) };
        let token = bearer_token(headers).ok_or_else(|| unauthenticated(None))?;
        let subject =
            tokens.subject(token).map_err(|error: BearerTokenError| unauthenticated(Some(error)))?;
        Ok(Self::Verified(subject))
    }

    /// Returns the user that a request is about. `kind` is the sale's kind of user ids.
    ///
    /// # Errors
    /// Fails when the user id is invalid, or names another user than the token.
    pub(crate) fn user(&self, raw: &RawUserId, kind: UserIdKind) -> Result<UserId, RequestError> {
        let Self::Verified(subject) = self else { return Ok(raw.parse(kind)?) };
        let user = UserId::parse(subject, kind)?;
        match raw {
            RawUserId::Absent => Ok(user),
            raw if raw.parse(kind).as_ref() == Ok(&user) => Ok(user),
            _ => Err(RequestError::OtherUser),
        }
    }
}

impl FromRequestParts<Arc<AppState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        // The admission control has identified most callers already.
        parts.extensions.remove().map_or_else(|| Self::identify(&state.identity, &parts.headers), Ok)
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut credentials = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(only), None) = (credentials.next(), credentials.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(caller: &Caller, raw: &RawUserId) -> Result<String, RequestError> {
        caller.user(raw, UserIdKind::Email).map(|user| user.as_str().to_owned())
    }

    fn text(id: &str) -> RawUserId {
        RawUserId::Text(id.to_owned())
    }

    #[test]
    fn unverified_caller_names_its_user() {
        assert_eq!(user(&Caller::Unverified, &text("Ann@shop.example")), Ok("ann@shop.example".into()));
        assert!(matches!(user(&Caller::Unverified, &RawUserId::Absent), Err(RequestError::InvalidId(_))));
    }

    #[test]
    fn verified_caller_cannot_name_another_user() {
        let ann = Caller::Verified("ann@shop.example".into());
        assert_eq!(user(&ann, &RawUserId::Absent), Ok("ann@shop.example".into()));
        assert_eq!(
            user(&ann, &text(" ANN@shop.example")),
            Ok("ann@shop.example".into()),
            "the same user in another spelling"
        );
        for other in [text("bob@shop.example"), text(""), RawUserId::NotText] {
            assert_eq!(user(&ann, &other), Err(RequestError::OtherUser));
        }
    }
}
