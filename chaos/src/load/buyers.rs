//! Creates buyers: numbered users with a home shard.

use buyers::{ApiFamily, journal::BuyerRequest};
use stock::{
    ids::{ShardId, UserId, UserIdKind},
    sale::Sale,
};

use crate::testbed::SALE;

/// One in this many buyers has the crowded shard as home: it is empty early, and nodes steal for it from then on.
const CROWDED_SHARD_ONE_IN: u64 = 4;

/// One in this many buyers sends no `Idempotency-Key`.
const NO_KEY_ONE_IN: u64 = 7;

/// One in this many buyers of the default sale uses the single-sale endpoints.
const SINGLE_SALE_ONE_IN: u64 = 6;

/// A simulated user who wants a unit.
#[derive(Clone, Debug)]
pub struct Buyer {
    pub(super) user: UserId,
    pub(super) home: ShardId,
    pub(super) number: u64,
    pub(super) api: ApiFamily,
    pub(super) has_key: bool,
}

/// Returns the buyer with this number. One in four has the first shard as home, independent of its share of the ring.
pub(super) fn numbered_buyer(sale: &Sale, number: u64) -> Buyer {
    let home = number.is_multiple_of(CROWDED_SHARD_ONE_IN).then(|| ShardId::new(0));
    let is_single = sale.id().as_str() == SALE && number % SINGLE_SALE_ONE_IN == 1;
    let api = if is_single { ApiFamily::SingleSale } else { ApiFamily::BySale };
    Buyer { api, has_key: number % NO_KEY_ONE_IN != 2, ..make_buyer(sale, number, home) }
}

impl Buyer {
    /// Returns the purchase request of the attempt with this name.
    pub(super) fn purchase(&self, sale: &Sale, name: &str) -> BuyerRequest {
        let attempt = format!("{}-{name}", self.user);
        let order = self.has_key.then(|| sale.config.order_id(&self.user, &attempt).to_string());
        BuyerRequest::Purchase { attempt, order }
    }
}

/// Returns the buyer with this number and home shard, who uses the by-sale endpoints and sends keys.
pub(super) fn make_buyer(sale: &Sale, number: u64, home: Option<ShardId>) -> Buyer {
    let candidates = (0..).map(|n| {
        let user = UserId::parse(&format!("buyer-{number}-{n}"), UserIdKind::Opaque);
        let user = user.expect("letters, digits and dashes are a user id");
        (sale.ring().home(&user), user)
    });
    let mut fitting = candidates.filter(|(at, _)| home.is_none_or(|home| home == *at));
    let (home, user) = fitting.next().expect("numbers do not end, and every shard has a share of the ring");
    Buyer { user, home, number, api: ApiFamily::BySale, has_key: true }
}
