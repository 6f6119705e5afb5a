//! Who comes to buy: users with a home, made up one after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use stock::{
    ids::{OrderId, ShardId, UserId, UserIdKind},
    sale::Sale,
};

use crate::{
    journal::{ApiFamily, BuyerRequest},
    testbed::SALE,
};

/// One in so many lives in the shard that most like: it runs dry early and steals from then on.
const ONE_IN_THE_CROWDED_SHARD: u64 = 4;

/// One in so many buyers sends no `Idempotency-Key`.
const ONE_WITHOUT_KEY: u64 = 7;

/// One in so many buyers of the default sale uses the second family of calls.
const ONE_AT_THE_SINGLE_SALE: u64 = 6;

/// Somebody who wants a unit.
#[derive(Clone, Debug)]
pub struct Buyer {
    pub(super) user: UserId,
    pub(super) home: ShardId,
    pub(super) number: u64,
    pub(super) api: ApiFamily,
    pub(super) has_key: bool,
}

/// Makes up people, each another one.
#[derive(Debug, Default)]
pub(crate) struct BuyerFactory {
    count: AtomicU64,
}

impl BuyerFactory {
    /// How many there are so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The next one; one in four at home in the first shard, whatever its share of the ring.
    pub(crate) fn next(&self, sale: &Sale) -> Buyer {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let home = number.is_multiple_of(ONE_IN_THE_CROWDED_SHARD).then(|| ShardId::new(0));
        person(sale, number, home).with_habits_of(sale)
    }

    /// The next one, at home in this shard.
    pub(crate) fn next_at(&self, sale: &Sale, home: ShardId) -> Buyer {
        person(sale, self.count.fetch_add(1, Ordering::Relaxed), Some(home))
    }
}

/// Somebody who came before.
pub(crate) fn known(sale: &Sale, number: u64) -> Buyer {
    let home = number.is_multiple_of(ONE_IN_THE_CROWDED_SHARD).then(|| ShardId::new(0));
    person(sale, number, home).with_habits_of(sale)
}

impl Buyer {
    /// What this buyer sends to buy: a try of the attempt of this name.
    pub(super) fn purchase(&self, sale: &Sale, name: &str) -> BuyerRequest {
        if self.has_key {
            self.attempt(sale, name)
        } else {
            BuyerRequest::PurchaseWithoutKey { attempt: name.into() }
        }
    }

    fn with_habits_of(self, sale: &Sale) -> Self {
        let is_single = sale.id().as_str() == SALE && self.number % ONE_AT_THE_SINGLE_SALE == 1;
        let api = if is_single { ApiFamily::SingleSale } else { ApiFamily::BySale };
        Self { api, has_key: self.number % ONE_WITHOUT_KEY != 2, ..self }
    }

    /// The attempt of this name, with a key.
    pub(crate) fn attempt(&self, sale: &Sale, name: &str) -> BuyerRequest {
        let key = format!("{}-{name}", self.user);
        let order = OrderId::derived(sale.id(), &self.user, &key).to_string();
        BuyerRequest::Purchase { key, order }
    }
}

fn person(sale: &Sale, number: u64, home: Option<ShardId>) -> Buyer {
    let candidates = (0..).map(|n| {
        let user = UserId::parse(&format!("buyer-{number}-{n}"), UserIdKind::Opaque);
        let user = user.expect("letters, digits and dashes are a user id");
        (sale.ring().home(&user), user)
    });
    let mut fitting = candidates.filter(|(at, _)| home.is_none_or(|home| home == *at));
    let (home, user) = fitting.next().expect("numbers do not end, and every shard has a share of the ring");
    Buyer { user, home, number, api: ApiFamily::BySale, has_key: true }
}
