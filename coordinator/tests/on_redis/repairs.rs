//! Damage that a running coordinator repairs, and damage that it only reports.

use std::time::Duration;

use coordinator::change::Change;
use coordinator::coordinator::{Coordinator, CoordinatorError};
use coordinator::new_sale::NewSale;
use coordinator::shard_problem::ProblemKind;
use stock::calls::Donate;
use stock::ids::{SaleId, ShardId};
use stock::layout::{SaleKeys, Shard};
use stock::snapshot::Snapshot;
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{
    SOON, assert_clean, chairs, client_of, coordinator_on, levels, shared_redis, while_running,
};

async fn snapshot(coordinator: &Coordinator, id: &SaleId) -> Option<Snapshot> {
    coordinator.inspect(id).await.unwrap().snapshot
}

#[tokio::test]
async fn abandoned_channel_tokens_are_redriven() {
    let redis = shared_redis().await;
    let (coordinator, donor_node) = (coordinator_on(redis).await, client_of(redis).await);
    let sale = coordinator.create(&NewSale { shards: Some(3), ..chairs("stranded") }).await.unwrap().sale;
    for (donor, to) in [(0, 1), (0, 2), (2, 1)] {
        let donate = Donate { shard: sale.shard(ShardId::new(donor)), to: ShardId::new(to), want: 5 };
        donor_node.write(donate).await.unwrap();
    }
    assert_eq!(coordinator.audit(sale.id()).await.unwrap().in_flight, 15);

    let arrived = testkit::until("arrival of the tokens", SOON, || async {
        levels(&coordinator, sale.id()).await.iter().map(|level| level.stock).sum::<u64>() == 100
    });
    while_running(&coordinator, arrived).await.unwrap();
    assert_clean(&coordinator, sale.id(), 100).await;
}

#[tokio::test]
async fn snapshots_are_published_repeatedly() {
    let coordinator = coordinator_on(shared_redis().await).await;
    let id = coordinator.create(&chairs("watched")).await.unwrap().sale.id().clone();
    let newer_than = async |at| {
        let is_newer = |snapshot: Option<Snapshot>| snapshot.is_some_and(|snapshot| snapshot.taken_at > at);
        testkit::until("a newer snapshot", SOON, || async { is_newer(snapshot(&coordinator, &id).await) })
            .await
            .unwrap();
        snapshot(&coordinator, &id).await.unwrap()
    };
    let (first, second) = while_running(&coordinator, async {
        let first = newer_than(0).await;
        (first.clone(), newer_than(first.taken_at).await)
    })
    .await;
    assert_eq!((first.total, first.stock, first.sold, first.in_flight), (100, 100, 0, 0));
    assert!(second.shards.iter().all(|shard| !shard.stale));
}

#[tokio::test]
async fn flushed_function_library_is_reloaded() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let coordinator = coordinator_on(&redis).await;
    let wanted = chairs("flushed");
    coordinator.create(&wanted).await.unwrap();
    flush_functions(&redis).await;
    coordinator.change(&wanted.id, &Change::Pause).await.unwrap();

    flush_functions(&redis).await;
    let looked = testkit::until("a snapshot of all shards", SOON, || async {
        snapshot(&coordinator, &wanted.id).await.is_some_and(|snapshot| snapshot.stock == 100)
    });
    while_running(&coordinator, looked).await.unwrap();
    assert_clean(&coordinator, &wanted.id, 100).await;
}

async fn flush_functions(redis: &RedisCluster) {
    for primary in redis.primaries().await {
        let mut connection = redis.connection(primary).await.unwrap();
        redis::cmd("FUNCTION").arg("FLUSH").exec_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn deleted_shard_is_reported_and_not_recreated() {
    let redis = shared_redis().await;
    let coordinator = coordinator_on(redis).await;
    let sale = coordinator.create(&NewSale { shards: Some(3), ..chairs("vanished") }).await.unwrap().sale;
    delete(redis, &coordinator, sale.shard(ShardId::new(1))).await;

    while_running(&coordinator, async {
        let refused = coordinator.change(sale.id(), &Change::Pause).await.err().unwrap();
        assert!(matches!(refused, CoordinatorError::Unconfirmed(shards) if shards.len() == 1));
        let observed = testkit::until("the loss to be observed", SOON, || async {
            coordinator
                .observations()
                .get(sale.id())
                .is_some_and(|observation| !observation.problems.is_empty())
        });
        observed.await.unwrap();
    })
    .await;
    let problems = coordinator.inspect(sale.id()).await.unwrap().problems;
    assert_eq!(
        problems.iter().map(|problem| (problem.shard, problem.kind)).collect::<Vec<_>>(),
        [(ShardId::new(1), ProblemKind::Missing)]
    );
}

async fn delete(redis: &RedisCluster, coordinator: &Coordinator, shard: &Shard) {
    let inspected = coordinator.inspect(&"vanished".parse().unwrap()).await.unwrap();
    let primary = inspected.topology.primary(shard.slot).unwrap().address.to_string().parse().unwrap();
    let mut connection = redis.connection(primary).await.unwrap();
    let mut delete = redis::cmd("DEL");
    delete.arg(&[&shard.meta, &shard.claims, &shard.orders]).exec_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn snapshots_continue_during_a_primary_failover() {
    let redis = RedisCluster::start(ClusterOptions {
        node_timeout: Some(Duration::from_secs(2)),
        ..ClusterOptions::default()
    })
    .await
    .unwrap();
    let coordinator = coordinator_on(&redis).await;
    let sale = coordinator.create(&NewSale { shards: Some(3), ..chairs("failing-over") }).await.unwrap().sale;
    let victim = victim_without_records(&redis, &coordinator, &sale).await;

    let staleness = |stale: usize| {
        let coordinator = &coordinator;
        let id = sale.id();
        let count = |snapshot: Snapshot| snapshot.shards.iter().filter(|shard| shard.stale).count();
        testkit::until("the number of stale shards", SOON, move || async move {
            snapshot(coordinator, id).await.is_some_and(|snapshot| count(snapshot) == stale)
        })
    };
    while_running(&coordinator, async {
        staleness(0).await.unwrap();
        redis.freeze(victim);
        staleness(1).await.unwrap();
        staleness(0).await.unwrap();
    })
    .await;
    redis.thaw(victim);
    redis.wait_until_whole().await.unwrap();
    assert_clean(&coordinator, sale.id(), 100).await;
}

/// A primary with a shard, but without the sale's record and the list of sales, which are read all the time.
async fn victim_without_records(
    redis: &RedisCluster,
    coordinator: &Coordinator,
    sale: &stock::sale::Sale,
) -> std::net::SocketAddr {
    let topology = coordinator.inspect(sale.id()).await.unwrap().topology;
    let records = [SaleKeys::new(sale.id()).slot, rediscluster::slot_of_tag(stock::layout::SALES_KEY)];
    let primaries = redis.primaries().await;
    let holds = |primary: &std::net::SocketAddr, slot| {
        topology.primary(slot).unwrap().address.to_string() == primary.to_string()
    };
    let free = primaries.into_iter().find(|primary| !records.iter().any(|&slot| holds(primary, slot)));
    free.expect("three primaries, two records")
}
