//! Sample sale, purchase and token for the described responses.

use std::sync::Arc;
use std::time::Duration;

use rediscluster::EpochMs;
use stock::calls::Claim;
use stock::ids::{OrderId, UserIdKind};
use stock::limit::Limit;
use stock::sale::{ChangeHistory, LayoutConfig, Product, SaleConfig, SaleState, Window};

use crate::http::csrf::NewToken;
use crate::limits::RateLimited;
use crate::sales::{Phase, Status};

pub(super) const CORRELATION_ID: &str = "5c66c6bc8212cebf";
/// 2026-11-21T20:00:00.007Z
const PURCHASED_AT: EpochMs = 1_795_291_200_007;

/// A sale in its first seconds.
pub(crate) fn status() -> Status {
    let config = SaleConfig {
        id: "flash".parse().expect("a valid sale id"),
        version: 1,
        state: SaleState::Open,
        window: Window { starts_at: PURCHASED_AT - 7, ends_at: PURCHASED_AT - 7 + 3_600_000 },
        total_stock: 1_000,
        product: Product { name: "Chair".into(), price: 49.9, description: "A good one".into() },
        user_ids: UserIdKind::Opaque,
        layout: LayoutConfig::new(Vec::new()),
        changes: ChangeHistory::default(),
        archive: None,
    };
    let server_time = PURCHASED_AT + 243;
    Status { config: Arc::new(config), phase: Phase::Active, sold: 1, sold_out: false, server_time }
}

/// A purchase in that sale.
pub(crate) fn claim() -> Claim {
    Claim { order: order(), purchased_at: PURCHASED_AT }
}

/// Its order id.
pub(crate) fn order() -> OrderId {
    "71R7D8J57MH5DF".parse().expect("a valid order id")
}

/// A token with the length of a real one, but no valid signature.
pub(crate) fn csrf_token() -> NewToken {
    let token = "AAABoKqLw4BqUXm1cWJrT2pZV0Y5c1lHd0xNQ0tQbkR4Y2pUa0hSdGJ5WmVBdVNpT3dGZw";
    NewToken::of(token.into(), Duration::from_hours(2), false)
}

/// A rate limit that was exceeded.
pub(super) fn limited() -> RateLimited {
    let limit = Limit { permits: 600, window: Duration::from_mins(1) };
    RateLimited { retry_after: Duration::from_secs(1), limit }
}
