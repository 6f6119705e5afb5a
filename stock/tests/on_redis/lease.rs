//! `lead`: one of several coordinators holds the lease as long as it renews it.

use std::time::Duration;

use rediscluster::Cluster;
use stock::lease::{Lead, Lease};
use testkit::RedisCluster;

use crate::fixture::{client_of, redis_without_replicas};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// A dedicated cluster: there is one lease per cluster.
struct Fixture {
    cluster: Cluster,
    _redis: RedisCluster,
}

impl Fixture {
    async fn new() -> Self {
        let redis = redis_without_replicas().await;
        Self { cluster: client_of(&redis).await, _redis: redis }
    }

    async fn request(&self, coordinator: &str, hold: Duration) -> Lease {
        self.cluster.poll(Lead { coordinator, hold }).await.unwrap()
    }

    /// Waits until the lease of another coordinator has run out.
    async fn wait_until_taken(&self, by: &str) {
        let taken = async || self.holder(by, SHORT).await.as_deref() == Some(by);
        testkit::until("the lease to run out", Duration::from_secs(10), taken).await.unwrap();
    }

    async fn holder(&self, asked_by: &str, hold: Duration) -> Option<String> {
        self.request(asked_by, hold).await.holder
    }
}

#[tokio::test]
async fn first_caller_gets_the_lease() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.request("ann", LONG).await, Lease { holder: Some("ann".into()), left: LONG });

    let answer = fixture.request("bob", LONG).await;

    assert_eq!(answer.holder.as_deref(), Some("ann"));
    assert!(answer.left > SHORT && answer.left <= LONG, "{answer:?}");
}

#[tokio::test]
async fn lease_is_cut_to_the_requested_time() {
    // Given a lease with a long remaining time, as on a server whose clock is behind.
    let fixture = Fixture::new().await;
    fixture.request("ann", LONG).await;

    let answer = fixture.request("bob", SHORT).await;

    assert_eq!(answer, Lease { holder: Some("ann".into()), left: SHORT });
    fixture.wait_until_taken("bob").await;
}

#[tokio::test]
async fn lease_ends_unless_renewed() {
    let fixture = Fixture::new().await;
    fixture.request("ann", SHORT).await;
    assert_eq!(fixture.request("ann", LONG).await.left, LONG, "it was not renewed");
    let outlived = async || {
        let Lease { holder, left } = fixture.request("bob", LONG).await;
        assert_eq!(holder.as_deref(), Some("ann"), "it ran out although it was renewed");
        left < LONG - 2 * SHORT
    };
    testkit::until("the first lease would have run out", Duration::from_secs(10), outlived).await.unwrap();

    fixture.request("ann", SHORT).await;
    fixture.wait_until_taken("bob").await;
}

#[tokio::test]
async fn only_the_lease_holder_can_release_it() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.holder("ann", Duration::ZERO).await, None, "a free lease stays free after a release");
    fixture.request("ann", LONG).await;

    assert_eq!(fixture.holder("bob", Duration::ZERO).await.as_deref(), Some("ann"));
    assert_eq!(fixture.holder("ann", Duration::ZERO).await, None);
    assert_eq!(fixture.holder("bob", LONG).await.as_deref(), Some("bob"));
}
