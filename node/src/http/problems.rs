//! The problems that both families share, and what each asks the client to do.

use std::time::Duration;

use axum::http::StatusCode;
use service::problem::{Kind, Problem};
use stock::ids::OrderId;

/// When to come back to a node that could not answer: by then a lane has emptied its queue several times, or a
/// failover is well under way.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn unknown_sale() -> Problem {
    let kind = Kind { uri: "/problems/unknown-sale", title: "Unknown sale" };
    Problem::new(StatusCode::NOT_FOUND).of_kind(kind).detail("There is no sale of this id.")
}

pub(super) fn invalid_idempotency_key() -> Problem {
    let kind = Kind { uri: "/problems/invalid-idempotency-key", title: "Invalid Idempotency-Key" };
    Problem::new(StatusCode::BAD_REQUEST)
        .of_kind(kind)
        .detail("The Idempotency-Key header must be 1 to 255 visible ASCII characters.")
}

pub(super) fn busy() -> Problem {
    let kind = Kind { uri: "/problems/busy", title: "Too many are waiting" };
    come_back(kind).detail("Nothing was bought. Try again in a moment.")
}

pub(super) fn unavailable() -> Problem {
    let kind = Kind { uri: "/problems/unavailable", title: "No answer in time" };
    come_back(kind).detail("Nothing was bought, and nothing could be looked up. Try again in a moment.")
}

pub(super) fn unknown_outcome(order: OrderId) -> Problem {
    let kind = Kind { uri: "/problems/unknown-outcome", title: "Outcome unknown" };
    come_back(kind).with("orderId", order.as_str()).detail(
        "The purchase may or may not have been made. Repeat it with the same Idempotency-Key to learn which; \
         without one, look the purchase up.",
    )
}

fn come_back(kind: Kind) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).of_kind(kind).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn whoever_is_to_come_back_is_told_when() {
        for problem in [busy(), unavailable(), unknown_outcome(OrderId::random())] {
            let response = problem.into_response();
            assert_eq!(response.status(), 503);
            assert_eq!(response.headers()["retry-after"], "1");
        }
    }
}
