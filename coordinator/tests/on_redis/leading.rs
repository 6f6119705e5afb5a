//! Of several coordinators one leads, and it matters to nobody if two do.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use futures::future::join_all;
use stock::calls::Donate;
use stock::ids::ShardId;
use stock::layout::{LEASE_KEY, SALES_KEY, slot_of_tag};
use testkit::{ClusterOptions, RedisCluster};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::stage::{
    PACE, SOON, assert_clean, chairs, client_of, coordinator_on, levels, shared_redis, while_running,
};

/// A cluster whose coordinators are all in this test: there is one lease a cluster.
async fn redis_of_its_own() -> RedisCluster {
    RedisCluster::start(ClusterOptions::default()).await.unwrap()
}

async fn until_leading(coordinator: &Coordinator) {
    let leads = async || coordinator.leadership().leads();
    testkit::until("somebody leads", SOON, leads).await.unwrap();
}

async fn primary_of_the_lease(redis: &RedisCluster) -> SocketAddr {
    let topology = client_of(redis).await.topology();
    topology.primary(slot_of_tag(SALES_KEY)).unwrap().address.to_string().parse().unwrap()
}

#[tokio::test]
async fn who_is_asked_to_stop_hands_over_at_once() {
    // Given one that leads and one that follows it.
    let redis = redis_of_its_own().await;
    let (one, two) = (coordinator_on(&redis).await, coordinator_on(&redis).await);
    let (stop, stopped) = oneshot::channel::<()>();
    let story = async {
        until_leading(&one).await;
        let other = tokio::spawn(async move {
            two.run(pending()).await;
        });
        let two_s_view = async || one.leadership().leads();
        assert!(two_s_view().await);
        stop.send(()).unwrap();
        other
    };
    let (other, ()) = tokio::join!(story, one.run(async { drop(stopped.await) }));

    // Then nobody holds the lease any more, long before it would have run out, or the other one does.
    assert!(!one.leadership().leads());
    let asked_at = Instant::now();
    let three = coordinator_on(&redis).await;
    other.abort();
    while_running(&three, async {
        let known = async || three.leadership().leader().is_some_and(|leader| leader != one.leadership().name());
        testkit::until("another leader", SOON, known).await.unwrap();
    })
    .await;
    assert!(asked_at.elapsed() < PACE.lease_duration, "the lease was left to run out");
}
