//! Problems that both families share. Each tells the client what to do next.

use std::time::Duration;

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use service::problem::{Problem, ProblemType, retry_after};
use stock::ids::OrderId;

use crate::csrf::BadToken;
use crate::identity;
use crate::limits::RateLimited;

pub(super) const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub(super) const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub(super) const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Time after which a client should retry. By then a lane has emptied its queue several times, or a failover is well
/// under way.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn unknown_sale() -> Problem {
    let kind = ProblemType { uri: "/problems/unknown-sale", title: "Unknown sale" };
    Problem::new(StatusCode::NOT_FOUND).of_kind(kind).detail("There is no sale of this id.")
}

pub(super) fn invalid_idempotency_key() -> Problem {
    let kind = ProblemType { uri: "/problems/invalid-idempotency-key", title: "Invalid Idempotency-Key" };
    Problem::new(StatusCode::BAD_REQUEST)
        .of_kind(kind)
        .detail("The Idempotency-Key header must be 1 to 255 visible ASCII characters.")
}

pub(super) fn busy() -> Problem {
    let kind = ProblemType { uri: "/problems/busy", title: "Too many buyers waiting" };
    retry_later(kind).detail("This request bought nothing. Try again in a moment.")
}

pub(super) fn unavailable() -> Problem {
    let kind = ProblemType { uri: "/problems/unavailable", title: "No answer in time" };
    retry_later(kind).detail("The sale or the order could not be read in time. This request bought nothing. Try again in a moment.")
}

pub(super) fn unknown_outcome(order: OrderId) -> Problem {
    let kind = ProblemType { uri: "/problems/unknown-outcome", title: "Outcome unknown" };
    retry_later(kind).with("orderId", order.as_str()).detail(
        "The purchase may or may not have been made. Repeat it with the same Idempotency-Key to learn which; \
         without one, look the purchase up.",
    )
}

/// Contains a new token, so that one retry is enough. The caller adds the cookie.
pub(super) fn csrf_rejected(error: BadToken, new_token: String) -> Problem {
    let kind = ProblemType { uri: "/problems/csrf", title: "CSRF token needed" };
    Problem::new(StatusCode::FORBIDDEN)
        .of_kind(kind)
        .with("reason", json!(error))
        .with("csrfToken", new_token)
        .detail("Repeat the request with the new token: in the X-CSRF-Token header, and in the cookie that came with it.")
}

/// `None` means that the request had no token.
pub(super) fn unauthenticated(error: Option<identity::BearerTokenError>) -> Problem {
    let kind = ProblemType { uri: "/problems/unauthenticated", title: "Authentication required" };
    let (challenge, detail) = match error {
        None => ("Bearer", "A bearer token is needed."),
        Some(identity::BearerTokenError::Expired) => {
            ("Bearer error=\"invalid_token\", error_description=\"expired\"", "The bearer token has expired.")
        }
        Some(identity::BearerTokenError::Invalid) => {
            ("Bearer error=\"invalid_token\"", "The bearer token is not valid here.")
        }
    };
    Problem::new(StatusCode::UNAUTHORIZED)
        .of_kind(kind)
        .detail(detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

pub(super) fn other_user() -> Problem {
    let kind = ProblemType { uri: "/problems/somebody-else", title: "Token names another user" };
    Problem::new(StatusCode::FORBIDDEN)
        .of_kind(kind)
        .detail("You can buy only for the user that your token names.")
}

/// Does not reveal if the other user has bought.
pub(super) fn order_not_found() -> Problem {
    let kind = ProblemType { uri: "/problems/not-found", title: "No order for this user" };
    Problem::new(StatusCode::NOT_FOUND)
        .of_kind(kind)
        .detail("The user of the token has no order under this user id.")
}

/// For the limit of an address or of a user.
pub(super) fn too_many_requests(RateLimited { retry_after: wait, limit }: RateLimited) -> Problem {
    let kind = ProblemType { uri: "/problems/too-many-requests", title: "Too many requests" };
    let policy = format!("{};w={}", limit.permits, limit.window.as_secs().max(1));
    let policy = HeaderValue::try_from(policy).expect("numbers are visible ASCII");
    Problem::new(StatusCode::TOO_MANY_REQUESTS)
        .of_kind(kind)
        .retry_after(wait)
        .header(RATELIMIT_LIMIT, HeaderValue::from(limit.permits))
        .header(RATELIMIT_REMAINING, HeaderValue::from(0))
        .header(RATELIMIT_RESET, retry_after(wait))
        .header(RATELIMIT_POLICY, policy)
        .detail("Nothing was done. Wait as long as the Retry-After header says.")
}

pub(super) fn too_many_listeners() -> Problem {
    let kind = ProblemType { uri: "/problems/too-many-listeners", title: "Too many listeners" };
    retry_later(kind).detail("Poll the status instead, or try again in a moment.")
}

fn retry_later(kind: ProblemType) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).of_kind(kind).retry_after(RETRY_AFTER)
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
