//! Permits that nodes borrow for a client, counted in the memory of a primary.

use std::time::Duration;

use jiff::SignedDuration;
use stock::ids::OrderId;
use stock::layout::LimitBucket;
use stock::limit::{Admit, Limit, PermitAnswer, PermitRequest};

use testkit::{ClusterOptions, RedisCluster, until};

use crate::fixture::{TestSale, client_of, server_clock};

/// Three requests at once, and one more per minute: no permit comes back while a test runs.
const THREE: Limit = Limit { permits: 3, window: Duration::from_mins(3) };

/// A client that no other test uses.
struct Client<'a> {
    sale: &'a TestSale,
    bucket: LimitBucket,
    name: String,
    limit: Limit,
}

impl<'a> Client<'a> {
    fn new(sale: &'a TestSale, limit: Limit) -> Self {
        Self { sale, bucket: LimitBucket::all().remove(0), name: OrderId::random().to_string(), limit }
    }

    async fn request(&self, spent: u32, want: u32) -> PermitAnswer {
        let requests = [PermitRequest { name: self.name.clone(), spent, want }];
        let admit = Admit { bucket: &self.bucket, limit: self.limit, requests: &requests };
        self.sale.cluster.read(admit).await.unwrap()[0]
    }
}

#[tokio::test]
async fn permits_are_granted_until_none_are_left() {
    let sale = TestSale::selling(0).await;
    let [ann, bob] = [(); 2].map(|()| Client::new(&sale, Limit { permits: 10, ..THREE }));
    assert_eq!(ann.request(0, 2).await, PermitAnswer::Granted(2));
    assert_eq!(ann.request(2, 4).await, PermitAnswer::Granted(4));
    assert_eq!(ann.request(0, 4).await, PermitAnswer::Granted(2), "the last ones");
    let none = ann.request(0, 4).await;
    assert!(matches!(none, PermitAnswer::After(wait) if wait > Duration::from_secs(15)), "{none:?}");
    assert_eq!(bob.request(0, 2).await, PermitAnswer::Granted(2), "another client has its own");
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

    /// Returns a bucket on the primary of the shard, whose clock is known to be set.
    fn bucket_beside_shard(&self) -> LimitBucket {
        let topology = self.sale.cluster.topology();
        let primary_of = |slot| topology.primary(slot).map(|primary| &primary.address);
        let own = primary_of(self.sale.shard().slot);
        LimitBucket::all().into_iter().find(|bucket| primary_of(bucket.slot) == own).unwrap()
    }
}

#[tokio::test]
async fn permits_are_counted_without_a_write() {
    let sale = TestSale::selling(0).await;
    let before = sale.contents().await;
    let ann = Client::new(&sale, THREE);
    ann.request(3, 1).await;
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn limits_end_when_fast_clock_is_corrected() {
    // Given a client with all permits used, by clocks that are three hours ahead.
    let with_clocks = SaleWithClocks::start().await;
    let sale = &with_clocks.sale;
    with_clocks.set_clocks(SignedDuration::from_hours(3)).await;
    let client = Client { bucket: with_clocks.bucket_beside_shard(), ..Client::new(sale, THREE) };
    let used = client.request(3, 1).await;
    assert!(matches!(used, PermitAnswer::After(_)), "{used:?}");

    // When the clocks are corrected.
    with_clocks.set_clocks(SignedDuration::ZERO).await;

    // Then it has all permits again, and is limited as before.
    assert_eq!(client.request(0, 4).await, PermitAnswer::Granted(3));
    let used = client.request(0, 1).await;
    assert!(matches!(used, PermitAnswer::After(wait) if wait <= Duration::from_mins(1)), "{used:?}");
}

#[tokio::test]
async fn excess_use_is_paid_back_within_a_window() {
    let sale = TestSale::selling(0).await;
    let ann = Client::new(&sale, THREE);

    let answer = ann.request(4, 1).await;
    let in_two_minutes = Duration::from_secs(115)..=Duration::from_mins(2);
    assert!(matches!(answer, PermitAnswer::After(wait) if in_two_minutes.contains(&wait)), "{answer:?}");

    let answer = ann.request(100, 1).await;
    assert!(matches!(answer, PermitAnswer::After(wait) if wait <= Duration::from_mins(4)), "{answer:?}");
}
