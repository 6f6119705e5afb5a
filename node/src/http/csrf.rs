//! Rejects cross-site requests (CSRF). Accepts requests from pages of this site, from pages of allowed sites, and from
//! clients that are not browsers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use service::problem::Problem;
use service::time::now;
use utoipa::{IntoResponses, ToSchema};

use super::AppState;
use super::client::Client;
use super::openapi::{Answers, Responses, samples, schemas};
use super::problems::csrf_rejected;
use super::single_sale::TAG;
use crate::csrf::{BadToken, CsrfTokens};
use crate::settings::Origin;

/// Name of the cookie that holds a token. Scripts can read it, because they have to repeat it in a header.
const COOKIE_NAME: &str = "csrfToken";
pub(crate) const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A CSRF token.
#[utoipa::path(get, path = "/api/csrf", operation_id = "csrf", tag = TAG, responses(IssuedToken))]
pub(crate) async fn issue(
    State(state): State<Arc<AppState>>,
    client: Option<Extension<Client>>,
) -> impl IntoResponse {
    issued(NewToken::issue(&state.csrf, client.as_deref()))
}

fn issued(token: NewToken) -> impl IntoResponse {
    ([(SET_COOKIE, token.cookie)], Json(IssuedToken { csrf_token: token.value }))
}

/// A token, in the body and as a cookie.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IssuedToken {
    #[schema(value_type = schemas::CsrfToken)]
    csrf_token: String,
}

impl IntoResponses for IssuedToken {
    fn responses() -> Responses {
        let sample = issued(samples::csrf_token());
        Answers::default().answer::<Self>("A token, in the body and as a cookie", sample).into()
    }
}

/// A new token and its cookie.
pub(super) struct NewToken {
    pub(super) value: String,
    pub(super) cookie: HeaderValue,
}

impl NewToken {
    /// Issues a token. The cookie is `Secure` for clients that use TLS.
    fn issue(tokens: &CsrfTokens, client: Option<&Client>) -> Self {
        Self::of(tokens.make(now()), tokens.lifetime(), client.is_some_and(|client| client.is_secure))
    }

    /// Adds the cookie to a token. It expires with the token.
    pub(super) fn of(value: String, lifetime: Duration, is_secure: bool) -> Self {
        let (seconds, secure) = (lifetime.as_secs(), if is_secure { "; Secure" } else { "" });
        let cookie = format!("{COOKIE_NAME}={value}; Path=/; Max-Age={seconds}; SameSite=Lax{secure}");
        let cookie = HeaderValue::try_from(cookie).expect("a token is made of letters, digits, - and _");
        Self { value, cookie }
    }
}

/// Extractor that rejects cross-site requests.
///
/// Requires no token when the browser's own headers prove where the request comes from. A token that is sent must be
/// valid.
pub(crate) struct CsrfGuard;

impl FromRequestParts<Arc<AppState>> for CsrfGuard {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        let refused = match passes_origin_check(&parts.headers, state.origins()) {
            Some(true) => return Ok(Self),
            Some(false) => BadToken::Missing,
            None => match check(&parts.headers, &state.csrf) {
                Ok(()) => return Ok(Self),
                Err(error) => error,
            },
        };
        Err(csrf_rejected(refused, NewToken::issue(&state.csrf, parts.extensions.get())))
    }
}

/// Extractor that requires a valid token. Clients of the single-sale endpoints always send one.
pub(crate) struct CsrfTokenGuard;

impl FromRequestParts<Arc<AppState>> for CsrfTokenGuard {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        check(&parts.headers, &state.csrf)
            .map(|()| Self)
            .map_err(|error| missing_token(error, NewToken::issue(&state.csrf, parts.extensions.get())))
    }
}

/// The CSRF token is missing or invalid. The response contains a new one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MissingCsrfToken {
    #[schema(pattern = "^csrf$")]
    error: &'static str,
    reason: BadToken,
    #[schema(value_type = schemas::CsrfToken)]
    csrf_token: String,
}

pub(super) fn missing_token(reason: BadToken, token: NewToken) -> Response {
    let body = MissingCsrfToken { error: "csrf", reason, csrf_token: token.value };
    (StatusCode::FORBIDDEN, [(SET_COOKIE, token.cookie)], Json(body)).into_response()
}

fn check(headers: &HeaderMap, tokens: &CsrfTokens) -> Result<(), BadToken> {
    let header = headers.get(X_CSRF_TOKEN).and_then(|value| value.to_str().ok());
    tokens.check(header, cookies(headers), now())
}

/// Returns every token in the cookies. A sibling domain may have set another one.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| token)
}

/// Decides by the browser's own headers: true for an allowed request, false for a cross-site one. Returns `None` when
/// the request has a token, which then decides.
fn passes_origin_check(headers: &HeaderMap, allowed: &[Origin]) -> Option<bool> {
    if headers.contains_key(X_CSRF_TOKEN) {
        return None;
    }
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (site, origin) = (text(&SEC_FETCH_SITE), text(&ORIGIN));
    let has_cookies = headers.contains_key(COOKIE);
    let is_allowed = |origin| {
        allowed.iter().any(|allowed| match allowed {
            Origin::Any => !has_cookies,
            Origin::Exact(allowed) => allowed == origin,
        })
    };
    let is_ours = match (site, origin) {
        (Some("same-origin" | "none"), _) => true,
        (_, Some(origin)) if is_allowed(origin) => true,
        // An old browser, which sends no `Sec-Fetch-Site`.
        (None, Some(origin)) => {
            text(&HOST).is_some_and(|host| origin.split_once("://").is_some_and(|(_, from)| from == host))
        }
        (None, None) => !has_cookies,
        (Some(_), _) => false,
    };
    Some(is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_check(headers: &[(&str, &str)], allowed: &[&str]) -> Option<bool> {
        let allowed: Vec<Origin> = allowed.iter().map(|origin| origin.parse().unwrap()).collect();
        let header = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        passes_origin_check(&headers.iter().map(header).collect(), &allowed)
    }

    #[test]
    fn client_without_browser_headers_and_cookies_is_allowed() {
        assert_eq!(origin_check(&[("host", "shop.example")], &[]), Some(true));
        assert_eq!(origin_check(&[("cookie", "session=1")], &[]), Some(false));
    }

    #[test]
    fn only_same_origin_pages_need_no_token() {
        assert_eq!(origin_check(&[("sec-fetch-site", "same-origin"), ("cookie", "a=b")], &[]), Some(true));
        for site in ["cross-site", "same-site", "", "made-up"] {
            assert_eq!(
                origin_check(&[("sec-fetch-site", site), ("origin", "https://evil.example")], &[]),
                Some(false)
            );
        }
    }

    #[test]
    fn allowed_site_may_send_requests() {
        let request =
            [("sec-fetch-site", "cross-site"), ("origin", "https://shop.example"), ("cookie", "a=b")];
        assert_eq!(origin_check(&request, &["https://shop.example"]), Some(true));
        assert_eq!(origin_check(&request, &["https://other.example"]), Some(false));
        assert_eq!(origin_check(&request, &["*"]), Some(false), "any site, but not with a buyer's cookies");
        assert_eq!(origin_check(&request[..2], &["*"]), Some(true));
    }

    #[test]
    fn old_browser_is_checked_by_its_origin() {
        let from = |origin| {
            origin_check(&[("host", "shop.example:8080"), ("origin", origin), ("cookie", "a=b")], &[])
        };
        assert_eq!(from("http://shop.example:8080"), Some(true));
        for other in ["http://shop.example", "http://evil.example", "null", "shop.example:8080"] {
            assert_eq!(from(other), Some(false), "{other}");
        }
    }

    #[test]
    fn sent_token_decides() {
        assert_eq!(origin_check(&[("sec-fetch-site", "same-origin"), ("x-csrf-token", "stale")], &[]), None);
    }
}
