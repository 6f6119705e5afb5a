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
use stock::sale::{Sale, SaleState};
use stock::snapshot::Snapshot;
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{
    assert_clean, by_test, chairs, client_of, coordinator_on, delete_shard, levels, primary_of, restock,
    send, shared_redis, until, while_running,
};

async fn snapshot(coordinator: &Coordinator, id: &SaleId) -> Option<Snapshot> {
    coordinator.sales.inspect(id).await.unwrap().snapshot
}

#[tokio::test]
async fn abandoned_channel_tokens_are_redriven() {
    let redis = shared_redis().await;
    let (coordinator, donor_node) = (coordinator_on(redis).await, client_of(redis).await);
    let sale = coordinator
        .sales
        .create(&NewSale { shards: Some(3), ..chairs("stranded") }, by_test())
        .await
        .unwrap()
        .sale;
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
    let id = coordinator.sales.create(&chairs("watched"), by_test()).await.unwrap().sale.id().clone();
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
    coordinator.sales.create(&wanted, by_test()).await.unwrap();
    flush_functions(&redis).await;
    coordinator.sales.change(&wanted.id, &Change::Pause, by_test()).await.unwrap();

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
    let sale = coordinator
        .sales
        .create(&NewSale { shards: Some(3), ..chairs("vanished") }, by_test())
        .await
        .unwrap()
        .sale;
    delete_shard(redis, &client_of(redis).await, sale.shard(ShardId::new(1))).await;

    while_running(&coordinator, async {
        let refused = coordinator.sales.change(sale.id(), &Change::Pause, by_test()).await.err().unwrap();
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
    let sale = coordinator
        .sales
        .create(&NewSale { shards: Some(3), ..chairs("failing-over") }, by_test())
        .await
        .unwrap()
        .sale;
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

/// Writes fields of a shard's meta, as a program with the Redis user of a node could.
async fn forge(redis: &RedisCluster, sale: &Sale, fields: &[(&str, &str)]) {
    let client = client_of(redis).await;
    let shard = sale.shard(ShardId::new(0));
    let mut set = redis::cmd("HSET");
    set.arg(&shard.meta);
    fields.iter().for_each(|(field, value)| _ = set.arg(field).arg(value));
    send::<()>(redis, primary_of(&client, shard.slot), &set).await;
}

#[tokio::test]
async fn shard_with_an_impossible_version_follows_the_record_again() {
    let redis = shared_redis().await;
    let coordinator = coordinator_on(redis).await;
    let sale = coordinator.sales.create(&chairs("forged-version"), by_test()).await.unwrap().sale;
    for version in ["999", "9007199254740993", "18446744073709551615"] {
        forge(redis, &sale, &[("version", version), ("state", "paused")]).await;

        let repaired = until("the recorded state in every shard", async || {
            levels(&coordinator, sale.id()).await.iter().all(|level| level.settings.state == SaleState::Open)
        });
        while_running(&coordinator, repaired).await;

        let resumed = coordinator.sales.change(sale.id(), &Change::Resume, by_test()).await.unwrap();
        assert!(resumed.config.version < 10_000, "the record did not follow to version {version}");
    }
}

#[tokio::test]
async fn restock_is_not_confirmed_while_a_shard_holds_unrecorded_tokens() {
    let redis = shared_redis().await;
    let coordinator = coordinator_on(redis).await;
    let sale = coordinator.sales.create(&chairs("forged-mint"), by_test()).await.unwrap().sale;
    forge(redis, &sale, &[("in:mint", "1000000"), ("stock", "1000000")]).await;

    let answer = coordinator.sales.change(sale.id(), &restock("truck", 5), by_test()).await;

    match answer {
        Err(OperationError::Unconfirmed(shards)) => {
            assert!(shards[0].to_string().contains("it holds 1000000 minted tokens"), "{}", shards[0]);
        }
        other => panic!("{:?}", other.map(|sale| sale.config)),
    }
}
