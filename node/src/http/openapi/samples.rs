//! Sample sale, purchase and token for the described responses.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use rediscluster::EpochMs;
use stock::calls::Claim;
use stock::ids::{OrderId, SaleId, UserIdKind};
use stock::limit::Limit;
use stock::sale::{ChangeHistory, LayoutConfig, Product, SaleConfig, SaleState, Window};

use crate::http::csrf::cookie_of;
use crate::limits::RateLimited;
use crate::sales::{Phase, Status};

pub(super) const CORRELATION_ID: &str = "5c66c6bc8212cebf";
/// Has the length of a token, but no valid signature.
pub(super) const CSRF_TOKEN: &str = "AAABoKqLw4BqUXm1cWJrT2pZV0Y5c1lHd0xNQ0tQbkR4Y2pUa0hSdGJ5WmVBdVNpT3dGZw";

/// 2026-11-21T20:00:00.007Z
const PURCHASED_AT: EpochMs = 1_795_291_200_007;
const STARTS_AT: EpochMs = 1_795_291_200_000;
const ENDS_AT: EpochMs = 1_795_294_800_000;

/// A sale in its first seconds.
pub(super) fn status() -> Status {
    let config = SaleConfig {
        id: sale_id(),
        version: 1,
        state: SaleState::Open,
        window: Window { starts_at: STARTS_AT, ends_at: ENDS_AT },
        total_stock: 1_000,
        product: Product { name: "Chair".into(), price: 49.9, description: "A good one".into() },
        user_ids: UserIdKind::Opaque,
        layout: LayoutConfig::new(Vec::new()),
        changes: ChangeHistory::default(),
    };
    Status {
        config: Arc::new(config),
        phase: Phase::Active,
        sold: 1,
        sold_out: false,
        server_time: PURCHASED_AT + 243,
    }
}

/// A purchase in that sale.
pub(super) fn claim() -> Claim {
    Claim { order: order(), purchased_at: PURCHASED_AT }
}

/// Its order id.
pub(super) fn order() -> OrderId {
    "71R7D8J57MH5DF".parse().expect("a valid order id")
}

/// The cookie of a token.
pub(super) fn csrf_cookie() -> HeaderValue {
    cookie_of(CSRF_TOKEN, Duration::from_hours(2), false)
}

/// A rate limit that was exceeded.
pub(super) fn limited() -> RateLimited {
    let limit = Limit { permits: 600, window: Duration::from_mins(1) };
    RateLimited { retry_after: Duration::from_secs(1), limit }
}

fn sale_id() -> SaleId {
    "flash".parse().expect("a valid sale id")
}
