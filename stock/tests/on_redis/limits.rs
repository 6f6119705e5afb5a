//! Limits shared by all callers: attempts of a user, and requests of an address.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;
use stock::calls::{Attempt, Buy, BuyOutcome};
use stock::ids::OrderId;
use stock::layout::LimitBucket;
use stock::limit::{Admit, Limit, PermitAnswer, PermitRequest};

use testkit::{ClusterOptions, RedisCluster, until};

use crate::fixture::{TestSale, attempt, attempts, buying, claim, client_of, server_clock};

/// Three attempts at once, and one more per minute: no permit comes back while a test runs.
const THREE: Limit = Limit { permits: 3, window: Duration::from_mins(3) };

/// The time until a used permit comes back, read some seconds later at most.
const IN_A_MINUTE: RangeInclusive<Duration> = Duration::from_secs(55)..=Duration::from_mins(1);

async fn try_limited(sale: &TestSale, attempts: &[Attempt]) -> Vec<BuyOutcome> {
    let buy = Buy { limit: Some(THREE), ..buying(sale.shard(), attempts) };
    sale.cluster.read(buy).await.unwrap().outcomes
}

#[tokio::test]
async fn limited_user_gets_the_time_to_wait() {
    let sale = TestSale::selling(5).await;

    let outcomes = try_limited(&sale, &attempts(["ann", "ann", "ann", "ann", "bob"])).await;

    claim(outcomes[0]);
    assert!(matches!(outcomes[1..3], [BuyOutcome::Duplicate(_), BuyOutcome::Duplicate(_)]), "{outcomes:?}");
    assert!(matches!(outcomes[3], BuyOutcome::Limited(wait) if IN_A_MINUTE.contains(&wait)), "{outcomes:?}");
    claim(outcomes[4]);
    assert_eq!(sale.level().await.sold, 2, "another user is not held back by it");
}

#[tokio::test]
async fn retry_by_a_node_does_not_count() {
    let sale = TestSale::selling(5).await;
    let again = |attempt: &Attempt| Attempt { counts_towards_limit: false, ..attempt.clone() };
    let ann = attempt("ann");
    try_limited(&sale, &[ann.clone(), ann.clone(), ann.clone()]).await;

    let outcomes = try_limited(&sale, &[again(&ann), ann]).await;

    assert!(matches!(outcomes[..], [BuyOutcome::Repeat(_), BuyOutcome::Limited(_)]), "{outcomes:?}");
}

#[tokio::test]
async fn limit_is_per_sale_and_writes_nothing() {
    let (one, other) = (TestSale::selling(0).await, TestSale::selling(0).await);
    let before = one.contents().await;
    try_limited(&one, &attempts(["ann"; 4])).await;
    assert_eq!(one.contents().await, before);
    assert_eq!(try_limited(&other, &attempts(["ann"])).await, [BuyOutcome::Empty]);
}

/// An address that no other test uses.
struct Client<'a> {
    sale: &'a TestSale,
    bucket: LimitBucket,
    address: String,
    limit: Limit,
}

impl<'a> Client<'a> {
    fn new(sale: &'a TestSale, limit: Limit) -> Self {
        Self { sale, bucket: LimitBucket::all().remove(0), address: OrderId::random().to_string(), limit }
    }

    async fn request(&self, spent: u32, want: u32) -> PermitAnswer {
        let requests = [PermitRequest { address: self.address.clone(), spent, want }];
        let admit = Admit { bucket: &self.bucket, limit: self.limit, requests: &requests };
        self.sale.cluster.read(admit).await.unwrap()[0]
    }
}

#[tokio::test]
async fn permits_are_granted_until_none_are_left() {
    let sale = TestSale::selling(0).await;
    let [ann, bob] = [(); 2].map(|()| Client::new(&sale, Limit { permits: 10, ..THREE }));
    assert_eq!(ann.request(0, 2).await, PermitAnswer::Granted(2));
    assert_eq!(ann.request(2, 4).await, PermitAnswer::Granted(2), "a quarter of the six that are left");
    for left in (1..=4).rev() {
        assert_eq!(ann.request(0, 4).await, PermitAnswer::Granted(1), "{left} left");
    }
    let none = ann.request(0, 4).await;
    assert!(matches!(none, PermitAnswer::After(wait) if wait > Duration::from_secs(15)), "{none:?}");
    assert_eq!(bob.request(0, 2).await, PermitAnswer::Granted(2), "another address has its own");
}

#[tokio::test]
async fn permits_come_back_one_by_one() {
    let sale = TestSale::selling(0).await;
    let ann = Client::new(&sale, Limit { permits: 10, window: Duration::from_millis(200) });
    assert_eq!(ann.request(9, 1).await, PermitAnswer::Granted(1));
    let PermitAnswer::After(wait) = ann.request(0, 10).await else {
        return; // The machine paused for as long as a permit takes to come back.
    };
    assert!(wait <= Duration::from_millis(20));
    let is_back = async || matches!(ann.request(0, 10).await, PermitAnswer::Granted(1..));
    until("a permit comes back", Duration::from_secs(5), is_back).await.unwrap();
}

/// A sale on a cluster whose clocks can be set.
struct SaleWithClocks {
    redis: RedisCluster,
    sale: TestSale,
}

impl SaleWithClocks {
    async fn start() -> Self {
        let options = ClusterOptions { clocks: true, ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        let sale = TestSale::on(client_of(&redis).await, &[0]).await;
        Self { redis, sale }
    }

    /// Sets all clocks this far ahead, and waits until the primary of the shard shows it.
    async fn set_clocks(&self, ahead: SignedDuration) {
        for server in self.redis.servers().await {
            self.redis.set_clock(server.addr, ahead).unwrap();
        }
        let expected = async || {
            let shown = SignedDuration::from_millis(server_clock(&self.sale).await as i64);
            let machine = SignedDuration::from_millis(jiff::Timestamp::now().as_millisecond());
            (shown - machine - ahead).abs() < SignedDuration::from_secs(10)
        };
        until("the clock is set", Duration::from_secs(10), expected).await.unwrap();
    }

    /// Returns a bucket of addresses on the primary of the shard, whose clock is known to be set.
    fn bucket_beside_shard(&self) -> LimitBucket {
        let topology = self.sale.cluster.topology();
        let primary_of = |slot| topology.primary(slot).map(|primary| &primary.address);
        let own = primary_of(self.sale.shard().slot);
        LimitBucket::all().into_iter().find(|bucket| primary_of(bucket.slot) == own).unwrap()
    }
}

#[tokio::test]
async fn limits_end_when_fast_clock_is_corrected() {
    // Given a user and an address with all permits used, by clocks that are three hours ahead.
    let with_clocks = SaleWithClocks::start().await;
    let sale = &with_clocks.sale;
    with_clocks.set_clocks(SignedDuration::from_hours(3)).await;
    let before = try_limited(sale, &attempts(["ann"; 4])).await;
    assert!(matches!(before[3], BuyOutcome::Limited(_)), "{before:?}");
    let client = Client { bucket: with_clocks.bucket_beside_shard(), ..Client::new(sale, THREE) };
    let used = client.request(3, 1).await;
    assert!(matches!(used, PermitAnswer::After(_)), "{used:?}");

    // When the clocks are corrected.
    with_clocks.set_clocks(SignedDuration::ZERO).await;

    // Then both have all permits again, and are limited as before.
    let outcomes = try_limited(sale, &attempts(["ann"; 4])).await;
    assert_eq!(outcomes[..3], [BuyOutcome::Empty; 3], "{outcomes:?}");
    let is_limited = matches!(outcomes[3], BuyOutcome::Limited(wait) if wait <= Duration::from_mins(1));
    assert!(is_limited, "{outcomes:?}");
    assert_eq!(client.request(0, 1).await, PermitAnswer::Granted(1));
}

#[tokio::test]
async fn excess_use_of_free_permits_gives_none_back() {
    let sale = TestSale::selling(0).await;
    let ann = Client::new(&sale, THREE);

    for spent in [100, 0] {
        let answer = ann.request(spent, 1).await;
        assert!(matches!(answer, PermitAnswer::After(wait) if IN_A_MINUTE.contains(&wait)), "{answer:?}");
    }
}
