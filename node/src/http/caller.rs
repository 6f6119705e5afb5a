//! The caller of a request, and the check that the request is about that caller.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use service::problem::Problem;
use stock::ids::{InvalidId, UserId, UserIdKind};

use super::AppState;
use super::client::Client;
use super::problems::{unauthenticated, unnamed_by_proxy};
use super::request::RawUserId;
use crate::identity::{BearerTokenError, Identity};
use crate::limits::RateLimited;

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Not authenticated: the request names its user itself.
    Unverified,
    /// The user that a signed token or a trusted proxy names.
    Verified(String),
}

/// Reasons why the user of a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// The user id is invalid.
    InvalidId(InvalidId),
    /// The request is about another user than its caller.
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
    /// Returns the caller of a request with these headers from this client.
    ///
    /// # Errors
    /// Fails when the request names its caller in no way that is believed.
    pub(super) fn identify(
        identity: &Identity,
        headers: &HeaderMap,
        client: Option<&Client>,
    ) -> Result<Self, Problem> {
        match identity {
            Identity::FromRequest => Ok(Self::Unverified),
            Identity::FromToken(tokens) => {
                let token = bearer_token(headers).ok_or_else(|| unauthenticated(None))?;
                let subject =
                    tokens.subject(token).map_err(|error: BearerTokenError| unauthenticated(Some(error)))?;
                Ok(Self::Verified(subject))
            }
            Identity::FromHeader(name) => {
                let is_trusted = client.is_some_and(|client| client.is_behind_proxy);
                let user = if is_trusted { named_user(headers, name) } else { None };
                user.map(|user| Self::Verified(user.to_owned())).ok_or_else(unnamed_by_proxy)
            }
        }
    }

    /// Returns the user that a request is about. `kind` is the sale's kind of user ids.
    ///
    /// # Errors
    /// Fails when the user id is invalid, or names another user than the caller.
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
        let known = parts.extensions.remove();
        let client = parts.extensions.get();
        known.map_or_else(|| Self::identify(&state.identity, &parts.headers, client), Ok)
    }
}

/// Returns the only value of the header. Two values, also in one line, come from a proxy that adds its own to the one of
/// the client, who could then be any user.
fn named_user<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    let (Some(only), None) = (values.next(), values.next()) else { return None };
    let user = std::str::from_utf8(only.as_bytes()).ok()?.trim();
    (!user.is_empty() && !user.contains(',')).then_some(user)
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut credentials = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(only), None) = (credentials.next(), credentials.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

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
    fn header_names_exactly_one_user() {
        let name = HeaderName::from_static("x-authenticated-user");
        let named = |values: &[&str]| {
            let line = |value: &&str| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let mut headers = HeaderMap::new();
            headers.extend(values.iter().map(line));
            named_user(&headers, &name).map(str::to_owned)
        };
        assert_eq!(named(&["ann"]).as_deref(), Some("ann"));
        assert_eq!(named(&[" jörg "]).as_deref(), Some("jörg"), "UTF-8");
        for refused in [&[][..], &[""], &[" "], &["ann", "bob"], &["ann", ""], &["ann, bob"], &["ann,"]] {
            assert_eq!(named(refused), None, "{refused:?}");
        }
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
