//! Creation of sales: complete, once, and also when the coordinator dies in between.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::new_sale::{Field, NewSale};
use coordinator::operations::OperationError;
use stock::calls::{Accept, Configure, TokenSource};
use stock::sale::SaleState;
use tokio::time::Instant;

use crate::fixture::{
    assert_clean, by_test, chairs, client_of, coordinator_on, levels, shared_redis, until, while_running,
};

#[tokio::test]
async fn shards_and_stock_are_spread_evenly() {
    let redis = shared_redis().await;
    let coordinator = coordinator_on(redis).await;
    let created = coordinator.sales.create(&chairs("parts"), by_test()).await.unwrap();
    assert!(created.is_new);
    assert_eq!(created.sale.config.state, SaleState::Open);

    let inspection = coordinator.sales.inspect(created.sale.id()).await.unwrap();
    let mut shards_of: BTreeMap<String, u32> = BTreeMap::new();
    for shard in created.sale.shards() {
        let primary = inspection.topology.primary(shard.slot).unwrap();
        *shards_of.entry(primary.address.to_string()).or_default() += 1;
    }
    assert_eq!(shards_of.into_values().collect::<Vec<_>>(), [4, 4, 4]);

    let stocks: Vec<u64> =
        levels(&coordinator, created.sale.id()).await.iter().map(|level| level.stock).collect();
    assert_eq!(stocks, created.sale.split(100));
    assert_clean(&coordinator, created.sale.id(), 100).await;
}

#[tokio::test]
async fn large_sale_is_created_within_a_second() {
    let redis = shared_redis().await;
    let coordinator = coordinator_on(redis).await;
    let wanted = NewSale { total_stock: 1_000_000, shards: Some(192), ..chairs("large") };
    let began = Instant::now();
    coordinator.sales.create(&wanted, by_test()).await.unwrap();
    let took = began.elapsed();
    println!("1,000,000 units in 192 shards were created in {took:?}");
    // Other tests share the machine.
    assert!(took < Duration::from_secs(4), "it took {took:?}");
}

#[tokio::test]
async fn creating_again_returns_the_sale_or_conflicts() {
    let coordinator = coordinator_on(shared_redis().await).await;
    let wanted = chairs("again");
    coordinator.sales.create(&wanted, by_test()).await.unwrap();
    assert!(!coordinator.sales.create(&wanted, by_test()).await.unwrap().is_new);

    let other = NewSale { total_stock: 101, shards: Some(5), ..wanted.clone() };
    let refused = coordinator.sales.create(&other, by_test()).await.err().unwrap();
    assert!(
        matches!(refused, OperationError::DifferentSettings { fields, .. } if fields == [Field::TotalStock, Field::Shards])
    );
    assert_clean(&coordinator, &wanted.id, 100).await;
}

#[tokio::test]
async fn concurrent_creations_create_one_sale() {
    let redis = shared_redis().await;
    let (one, two) = (coordinator_on(redis).await, coordinator_on(redis).await);
    let wanted = chairs("at-once");
    let (one_s, two_s) =
        tokio::join!(one.sales.create(&wanted, by_test()), two.sales.create(&wanted, by_test()));
    let is_new = [one_s.unwrap().is_new, two_s.unwrap().is_new];
    assert!(is_new.contains(&true), "one of them created it");
    assert_clean(&one, &wanted.id, 100).await;
}

/// The coordinator dies after it has recorded the sale, and created and filled this many of its shards. The next one
/// completes the sale.
async fn next_coordinator_completes_after(id: &str, shards_made: usize) {
    let redis = shared_redis().await;
    let first = coordinator_on(redis).await;
    let (recorded, _) = first.sales.record_creation(&chairs(id), by_test()).await.unwrap();
    let node = client_of(redis).await;
    let config = &recorded.sale.config;
    for (shard, &cumulative) in recorded.sale.shards().iter().zip(&recorded.mint).take(shards_made) {
        let (version, state, window) = (config.version, config.state, config.window);
        node.write(Configure { shard, version, state, window }).await.unwrap();
        node.write(Accept { shard, from: TokenSource::Mint, cumulative }).await.unwrap();
    }
    drop(first);

    let next = coordinator_on(redis).await;
    let opened = until("opening", async || {
        next.sales.existing(&config.id).await.unwrap().sale.config.state == SaleState::Open
    });
    while_running(&next, opened).await;
    assert_clean(&next, &config.id, 100).await;
}

#[tokio::test]
async fn next_coordinator_creates_a_recorded_sale() {
    next_coordinator_completes_after("written-down", 0).await;
}

#[tokio::test]
async fn next_coordinator_completes_a_half_created_sale() {
    next_coordinator_completes_after("half-made", 6).await;
}

#[tokio::test]
async fn next_coordinator_opens_a_fully_minted_sale() {
    next_coordinator_completes_after("not-open", 12).await;
}
