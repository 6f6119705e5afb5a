//! `lead`: of several coordinators one holds the lease, for as long as it renews it.

use std::time::Duration;

use stock::cluster::Cluster;
use stock::lease::{Lead, Lease};
use testkit::{ClusterOptions, RedisCluster};

use crate::stage::client_of;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// A cluster of its own: there is one lease a cluster.
struct Stage {
    cluster: Cluster,
    _redis: RedisCluster,
}

impl Stage {
    async fn new() -> Self {
        let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        Self { cluster: client_of(&redis).await, _redis: redis }
    }

    async fn asks(&self, coordinator: &str, hold: Duration) -> Lease {
        self.cluster.poll(Lead { coordinator, hold }).await.unwrap()
    }

    async fn holder(&self, asked_by: &str, hold: Duration) -> Option<String> {
        self.asks(asked_by, hold).await.holder
    }
}

#[tokio::test]
async fn who_comes_first_holds_it_and_the_others_learn_for_how_long() {
    let stage = Stage::new().await;
    assert_eq!(stage.asks("ann", LONG).await, Lease { holder: Some("ann".into()), left: LONG });

    let told = stage.asks("bob", LONG).await;

    assert_eq!(told.holder.as_deref(), Some("ann"));
    assert!(told.left > SHORT && told.left <= LONG, "{told:?}");
}

#[tokio::test]
async fn a_lease_lasts_no_longer_than_others_ask_for() {
    // Given a lease that seems to last for long, as on a server whose clock is behind.
    let stage = Stage::new().await;
    stage.asks("ann", LONG).await;

    let told = stage.asks("bob", SHORT).await;

    assert_eq!(told, Lease { holder: Some("ann".into()), left: SHORT });
    let taken = async || stage.holder("bob", SHORT).await.as_deref() == Some("bob");
    testkit::until("the lease to run out", Duration::from_secs(10), taken).await.unwrap();
}

#[tokio::test]
async fn who_renews_it_keeps_it_and_who_does_not_loses_it() {
    let stage = Stage::new().await;
    stage.asks("ann", SHORT).await;
    assert_eq!(stage.asks("ann", LONG).await.left, LONG, "it was not renewed");
    tokio::time::sleep(2 * SHORT).await;
    assert_eq!(stage.holder("bob", LONG).await.as_deref(), Some("ann"), "it ran out although it was renewed");

    stage.asks("ann", SHORT).await;
    let taken = async || stage.holder("bob", SHORT).await.as_deref() == Some("bob");
    testkit::until("the lease to run out", Duration::from_secs(10), taken).await.unwrap();
}

#[tokio::test]
async fn only_who_holds_it_can_give_it_up() {
    let stage = Stage::new().await;
    assert_eq!(stage.holder("ann", Duration::ZERO).await, None, "what nobody holds is given up");
    stage.asks("ann", LONG).await;

    assert_eq!(stage.holder("bob", Duration::ZERO).await.as_deref(), Some("ann"));
    assert_eq!(stage.holder("ann", Duration::ZERO).await, None);
    assert_eq!(stage.holder("bob", LONG).await.as_deref(), Some("bob"));
}
