//! Damage that a running coordinator repairs, and damage that it only reports.

use std::net::SocketAddr;
use std::time::Duration;

use coordinator::change::Change;
use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use coordinator::operations::OperationError;
use coordinator::shard_problem::ProblemKind;
use rediscluster::slot_of_tag;
use stock::calls::Donate;
use stock::ids::{SaleId, ShardId};
use stock::layout::{SALES_KEY, SaleKeys};
use stock::snapshot::Snapshot;
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{
    assert_clean, chairs, client_of, coordinator_on, delete_shard, levels, primary_of, send, shared_redis,
    until, while_running,
};

async fn snapshot(coordinator: &Coordinator, id: &SaleId) -> Option<Snapshot> {
    coordinator.sales.inspect(id).await.unwrap().snapshot
}

#[tokio::test]
async fn abandoned_channel_tokens_are_redriven() {
    let redis = shared_redis().await;
    let (coordinator, donor_node) = (coordinator_on(redis).await, client_of(redis).await);
    let sale =
        coordinator.sales.create(&NewSale { shards: Some(3), ..chairs("stranded") }).await.unwrap().sale;
    for (donor, to) in [(0, 1), (0, 2), (2, 1)] {
        let donate = Donate { shard: sale.shard(ShardId::new(donor)), to: ShardId::new(to), want: 5 };
        donor_node.write(donate).await.unwrap();
    }
    assert_eq!(coordinator.sales.audit(sale.id()).await.unwrap().in_flight, 15);

    let arrived = until("arrival of the tokens", async || {
        levels(&coordinator, sale.id()).await.iter().map(|level| level.stock).sum::<u64>() == 100
    });
    while_running(&coordinator, arrived).await;
    assert_clean(&coordinator, sale.id(), 100).await;
}

#[tokio::test]
async fn snapshots_are_published_repeatedly() {
    let coordinator = coordinator_on(shared_redis().await).await;
    let id = coordinator.sales.create(&chairs("watched")).await.unwrap().sale.id().clone();
    let newer_than = async |at| {
        let latest = async || snapshot(&coordinator, &id).await;
        until("a newer snapshot", async || latest().await.is_some_and(|latest| latest.taken_at > at)).await;
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
    coordinator.sales.create(&wanted).await.unwrap();
    flush_functions(&redis).await;
    coordinator.sales.change(&wanted.id, &Change::Pause).await.unwrap();

    flush_functions(&redis).await;
    let looked = until("a snapshot of all shards", async || {
        snapshot(&coordinator, &wanted.id).await.is_some_and(|snapshot| snapshot.stock == 100)
    });
    while_running(&coordinator, looked).await;
    assert_clean(&coordinator, &wanted.id, 100).await;
}

async fn flush_functions(redis: &RedisCluster) {
    for primary in redis.primaries().await {
        let () = send(redis, primary, redis::cmd("FUNCTION").arg("FLUSH")).await;
    }
}

#[tokio::test]
async fn deleted_shard_is_reported_and_not_recreated() {
    let redis = shared_redis().await;
    let coordinator = coordinator_on(redis).await;
    let sale =
        coordinator.sales.create(&NewSale { shards: Some(3), ..chairs("vanished") }).await.unwrap().sale;
    delete_shard(redis, &client_of(redis).await, sale.shard(ShardId::new(1))).await;

    while_running(&coordinator, async {
        let refused = coordinator.sales.change(sale.id(), &Change::Pause).await.err().unwrap();
        assert!(matches!(refused, OperationError::Unconfirmed(shards) if shards.len() == 1));
        let observed = async || {
            let observations = coordinator.observations();
            observations.get(sale.id()).is_some_and(|observation| !observation.problems.is_empty())
        };
        until("the loss to be observed", observed).await;
    })
    .await;
    let problems = coordinator.sales.inspect(sale.id()).await.unwrap().problems;
    assert_eq!(
        problems.iter().map(|problem| (problem.shard, problem.kind)).collect::<Vec<_>>(),
        [(ShardId::new(1), ProblemKind::Missing)]
    );
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
    let sale =
        coordinator.sales.create(&NewSale { shards: Some(3), ..chairs("failing-over") }).await.unwrap().sale;
    let victim = victim_without_records(&redis, sale.id()).await;

    let staleness = async |stale: usize| {
        let count = |snapshot: Snapshot| snapshot.shards.iter().filter(|shard| shard.stale).count();
        let latest = async || snapshot(&coordinator, sale.id()).await;
        until("the number of stale shards", async || latest().await.map(count) == Some(stale)).await;
    };
    while_running(&coordinator, async {
        staleness(0).await;
        redis.freeze(victim);
        staleness(1).await;
        staleness(0).await;
    })
    .await;
    redis.thaw(victim);
    redis.wait_until_whole().await.unwrap();
    assert_clean(&coordinator, sale.id(), 100).await;
}

/// A primary with a shard, but without the sale's record and the list of sales, which are read all the time.
async fn victim_without_records(redis: &RedisCluster, sale: &SaleId) -> SocketAddr {
    let client = client_of(redis).await;
    let records = [SaleKeys::new(sale).slot, slot_of_tag(SALES_KEY)].map(|slot| primary_of(&client, slot));
    let mut primaries = redis.primaries().await.into_iter();
    primaries.find(|primary| !records.contains(primary)).expect("three primaries, two records")
}
