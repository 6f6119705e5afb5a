//! One of several coordinators leads, and two leaders do no harm.

use std::net::SocketAddr;
use std::time::Duration;

use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use coordinator::timing::Timing;
use rediscluster::slot_of_tag;
use stock::calls::Donate;
use stock::ids::ShardId;
use stock::layout::{LEASE_KEY, SALES_KEY};
use testkit::{ClusterOptions, RedisCluster};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::fixture::{
    TIMING, assert_clean, by_test, chairs, client_of, coordinator_on, coordinator_with, levels, primary_of,
    send, until, wait_for_observations, while_running,
};

/// With a lease that does not expire during a test.
const LONG_LEASE: Timing = Timing { lease_duration: Duration::from_mins(1), ..TIMING };

/// A cluster whose coordinators all belong to one test, because a cluster has one lease.
async fn start_redis() -> RedisCluster {
    RedisCluster::start(ClusterOptions::default()).await.unwrap()
}

async fn until_leading(coordinator: &Coordinator) {
    until("it leads", async || coordinator.leadership().leads()).await;
}

async fn until_following(coordinator: &Coordinator, leader: &Coordinator) {
    let leader = leader.leadership().name();
    let follows = async || coordinator.leadership().leader().as_deref() == Some(leader);
    until("it follows", follows).await;
    assert!(!coordinator.leadership().leads());
}

async fn primary_of_the_lease(redis: &RedisCluster) -> SocketAddr {
    primary_of(&client_of(redis).await, slot_of_tag(SALES_KEY))
}

#[tokio::test]
async fn leader_hands_over_at_once_when_stopped() {
    // Given a leader with a long lease, and a follower.
    let redis = start_redis().await;
    let (one, two) = (coordinator_with(&redis, LONG_LEASE).await, coordinator_with(&redis, LONG_LEASE).await);
    let (stop, stopped) = oneshot::channel::<()>();
    let scenario = async {
        until_leading(&one).await;
        while_running(&two, async {
            until_following(&two, &one).await;

            // When the leader is stopped, then the follower leads long before the lease would have expired.
            stop.send(()).unwrap();
            let asked_at = Instant::now();
            until_leading(&two).await;
            assert!(asked_at.elapsed() < LONG_LEASE.lease_duration / 2, "the lease was left to run out");
            assert!(!one.leadership().leads());
        })
        .await;
    };
    tokio::join!(scenario, one.run(async { drop(stopped.await) }));
}

#[tokio::test]
async fn leader_stops_leading_when_its_lease_expires() {
    let redis = start_redis().await;
    let coordinator = coordinator_on(&redis).await;
    let primary = primary_of_the_lease(&redis).await;
    while_running(&coordinator, async {
        until_leading(&coordinator).await;

        redis.freeze(primary);
        let stopped = async || !coordinator.leadership().leads();
        testkit::until("it stops leading", TIMING.lease_duration, stopped).await.unwrap();

        redis.thaw(primary);
        until_leading(&coordinator).await;
    })
    .await;
}

#[tokio::test]
async fn follower_does_not_observe_shards() {
    let redis = start_redis().await;
    let (one, two) = (coordinator_on(&redis).await, coordinator_on(&redis).await);
    let sale = one.sales.create(&chairs("followed"), by_test()).await.unwrap().sale;
    let sees = |coordinator: &Coordinator| coordinator.observations().contains_key(sale.id());
    while_running(&one, async {
        until_leading(&one).await;
        until("the leader to look at the sale", async || sees(&one)).await;
        while_running(&two, async {
            until_following(&two, &one).await;
            wait_for_observations(&one, sale.id(), 10).await;
            assert!(!sees(&two), "a follower observes the shards as well");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn several_leaders_at_once_do_no_harm() {
    // Given a lease that is deleted as soon as a coordinator has it, so that the next one gets it, too. It lasts so
    // long that no coordinator checks it again before the scenario is over.
    let redis = start_redis().await;
    let primary = primary_of_the_lease(&redis).await;
    let leads_unknown_to_others = async |coordinator: &Coordinator| {
        until_leading(coordinator).await;
        let () = send(&redis, primary, redis::cmd("DEL").arg(LEASE_KEY)).await;
    };
    let [one, two, three] = [
        coordinator_with(&redis, LONG_LEASE).await,
        coordinator_with(&redis, LONG_LEASE).await,
        coordinator_with(&redis, LONG_LEASE).await,
    ];
    let sale =
        one.sales.create(&NewSale { shards: Some(3), ..chairs("crowded") }, by_test()).await.unwrap().sale;
    let donor_node = client_of(&redis).await;

    // When tokens are left in channels while all of them lead.
    let stealing = async {
        leads_unknown_to_others(&three).await;
        assert!([&one, &two, &three].iter().all(|coordinator| coordinator.leadership().leads()));
        for n in 0..30_u16 {
            let (donor, to) = (ShardId::new(n % 3), ShardId::new((n + 1) % 3));
            donor_node.write(Donate { shard: sale.shard(donor), to, want: 3 }).await.unwrap();
        }
        let at_rest =
            async || levels(&one, sale.id()).await.iter().map(|level| level.stock).sum::<u64>() == 100;
        until("all tokens to arrive", at_rest).await;
    };
    let with_three = async {
        leads_unknown_to_others(&two).await;
        while_running(&three, stealing).await;
    };
    let with_two = async {
        leads_unknown_to_others(&one).await;
        while_running(&two, with_three).await;
    };
    while_running(&one, with_two).await;

    // Then every token arrives once.
    assert_clean(&one, sale.id(), 100).await;
}
