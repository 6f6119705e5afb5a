//! Problems that both families share. Each tells the client what to do next.

use std::time::Duration;

use axum::http::header::{SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use service::problem::{Problem, ProblemType, retry_after};
use stock::ids::OrderId;

use super::csrf::NewToken;
use crate::csrf::BadToken;
use crate::identity;
use crate::limits::RateLimited;
use crate::sales::LookupError;

pub(super) const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub(super) const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub(super) const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Time after which a client should retry. By then a lane has emptied its queue several times, or a failover is well
/// under way.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn unknown_sale() -> Problem {
    problem(StatusCode::NOT_FOUND, "/problems/unknown-sale", "Unknown sale")
        .detail("There is no sale of this id.")
}

pub(super) fn invalid_idempotency_key() -> Problem {
    problem(StatusCode::BAD_REQUEST, "/problems/invalid-idempotency-key", "Invalid Idempotency-Key")
        .detail("The Idempotency-Key header must be at most 255 visible ASCII characters.")
}

pub(super) fn busy() -> Problem {
    retry_later("/problems/busy", "Too many buyers waiting")
        .detail("This request bought nothing. Try again in a moment.")
}

pub(super) fn unavailable() -> Problem {
    retry_later("/problems/unavailable", "No answer in time").detail("The sale or the order could not be read in time. This request bought nothing. Try again in a moment.")
}

pub(super) fn archived() -> Problem {
    problem(StatusCode::GONE, "/problems/archived", "Sale archived")
        .detail("The sale is over, and its orders have left this service. The shop has them.")
}

/// The answer to a lookup that found nothing out.
pub(super) fn lookup_failed(error: LookupError) -> Problem {
    match error {
        LookupError::Unavailable => unavailable(),
        LookupError::Archived => archived(),
    }
}

pub(super) fn unknown_outcome(order: OrderId) -> Problem {
    retry_later("/problems/unknown-outcome", "Outcome unknown").with("orderId", order.as_str()).detail(
        "The purchase may or may not have been made. Repeat it with the same Idempotency-Key to learn which; \
         without one, look the purchase up.",
    )
}

/// Contains a new token, so that one retry is enough.
pub(super) fn csrf_rejected(error: BadToken, new_token: NewToken) -> Problem {
    problem(StatusCode::FORBIDDEN, "/problems/csrf", "CSRF token needed")
        .with("reason", json!(error))
        .with("csrfToken", new_token.value)
        .header(SET_COOKIE, new_token.cookie)
        .detail("Repeat the request with the new token: in the X-CSRF-Token header, and in the cookie that came with it.")
}

/// `None` means that the request had no token.
pub(super) fn unauthenticated(error: Option<identity::BearerTokenError>) -> Problem {
    let (challenge, detail) = match error {
        None => ("Bearer", "A bearer token is needed."),
        Some(identity::BearerTokenError::Expired) => {
            ("Bearer error=\"invalid_token\", error_description=\"expired\"", "The bearer token has expired.")
        }
        Some(identity::BearerTokenError::ExpiresTooLate) => (
            "Bearer error=\"invalid_token\", error_description=\"expires too late\"",
            "The bearer token is valid for too long.",
        ),
        Some(identity::BearerTokenError::Invalid) => {
            ("Bearer error=\"invalid_token\"", "The bearer token is not valid here.")
        }
    };
    problem(StatusCode::UNAUTHORIZED, "/problems/unauthenticated", "Authentication required")
        .detail(detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// For AUTH=header. The client can do nothing but sign in again at the proxy.
pub(super) fn unnamed_by_proxy() -> Problem {
    problem(StatusCode::UNAUTHORIZED, "/problems/unauthenticated", "Authentication required")
        .detail("The proxy in front of this service has to name the user. Sign in again.")
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Gateway"))
}

pub(super) fn other_user() -> Problem {
    problem(StatusCode::FORBIDDEN, "/problems/somebody-else", "Token names another user")
        .detail("You can buy only for the user that your token names.")
}

/// A retry does not help: the others of the network keep their units.
pub(super) fn network_full() -> Problem {
    problem(StatusCode::FORBIDDEN, "/problems/network-full", "Network has its units")
        .detail("The buyers of your network have all units that one network may have. Nothing was bought.")
}

/// Does not reveal if the other user has bought.
pub(super) fn order_not_found() -> Problem {
    problem(StatusCode::NOT_FOUND, "/problems/not-found", "No order for this user")
        .detail("The user of the token has no order under this user id.")
}

/// For the limit of an address or of a user.
pub(super) fn too_many_requests(RateLimited { retry_after: wait, limit }: RateLimited) -> Problem {
    let policy = format!("{};w={}", limit.permits, limit.window.as_secs().max(1));
    let policy = HeaderValue::try_from(policy).expect("numbers are visible ASCII");
    problem(StatusCode::TOO_MANY_REQUESTS, "/problems/too-many-requests", "Too many requests")
        .retry_after(wait)
        .header(RATELIMIT_LIMIT, HeaderValue::from(limit.permits))
        .header(RATELIMIT_REMAINING, HeaderValue::from(0))
        .header(RATELIMIT_RESET, retry_after(wait))
        .header(RATELIMIT_POLICY, policy)
        .detail("Nothing was done. Wait as long as the Retry-After header says.")
}

pub(super) fn too_many_listeners() -> Problem {
    retry_later("/problems/too-many-listeners", "Too many listeners")
        .detail("Poll the status instead, or try again in a moment.")
}

fn problem(status: StatusCode, uri: &'static str, title: &'static str) -> Problem {
    Problem::new(status).of_kind(ProblemType { uri, title })
}

fn retry_later(uri: &'static str, title: &'static str) -> Problem {
    problem(StatusCode::SERVICE_UNAVAILABLE, uri, title).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn retryable_problems_have_a_retry_after_header() {
        for problem in [busy(), unavailable(), unknown_outcome(OrderId::random())] {
            let response = problem.into_response();
            assert_eq!(response.status(), 503);
            assert_eq!(response.headers()["retry-after"], "1");
        }
    }
}
