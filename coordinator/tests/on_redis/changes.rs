//! Changes by operators, which every shard confirms.

use coordinator::change::{Change, ChangeError};
use coordinator::new_sale::NewSale;
use coordinator::operations::OperationError;
use stock::calls::BuyOutcome;
use stock::sale::SaleState;

use crate::fixture::{
    assert_clean, buy, by_test, chairs, client_of, coordinator_on, levels, restock, shared_redis,
};

#[tokio::test]
async fn pause_resume_and_end_reach_every_shard() {
    let redis = shared_redis().await;
    let (coordinator, node) = (coordinator_on(redis).await, client_of(redis).await);
    let id = coordinator.sales.create(&chairs("states"), by_test()).await.unwrap().sale.id().clone();
    let outcome = async |user| buy(&coordinator, &node, &id, user).await;
    assert!(matches!(outcome("ann").await, BuyOutcome::Bought(_)));

    let paused = coordinator.sales.change(&id, &Change::Pause, by_test()).await.unwrap();
    assert!(
        levels(&coordinator, &id).await.iter().all(|level| level.settings.version == paused.config.version)
    );
    assert_eq!(outcome("bob").await, BuyOutcome::NotOpen);
    assert!(matches!(outcome("ann").await, BuyOutcome::Duplicate(_)), "a claim stays a claim");

    coordinator.sales.change(&id, &Change::Resume, by_test()).await.unwrap();
    assert!(matches!(outcome("bob").await, BuyOutcome::Bought(_)));

    let ended = coordinator.sales.change(&id, &Change::End, by_test()).await.unwrap();
    assert_eq!(
        coordinator.sales.change(&id, &Change::End, by_test()).await.unwrap().config,
        ended.config,
        "repeating is harmless"
    );
    assert_eq!(outcome("carol").await, BuyOutcome::NotOpen);
    let refused = coordinator.sales.change(&id, &Change::Resume, by_test()).await.err().unwrap();
    assert!(matches!(refused, OperationError::Refused(ChangeError::Ended)));
    assert_clean(&coordinator, &id, 100).await;
}

#[tokio::test]
async fn moved_end_takes_effect_at_once() {
    let redis = shared_redis().await;
    let (coordinator, node) = (coordinator_on(redis).await, client_of(redis).await);
    let wanted = chairs("moved-end");
    coordinator.sales.create(&wanted, by_test()).await.unwrap();
    coordinator.sales.change(&wanted.id, &Change::Extend { ends_at: 2_000 }, by_test()).await.unwrap();
    assert_eq!(buy(&coordinator, &node, &wanted.id, "ann").await, BuyOutcome::NotOpen);
    coordinator
        .sales
        .change(&wanted.id, &Change::Extend { ends_at: 4_000_000_000_000 }, by_test())
        .await
        .unwrap();
    assert!(matches!(buy(&coordinator, &node, &wanted.id, "ann").await, BuyOutcome::Bought(_)));
}

#[tokio::test]
async fn repeated_restock_adds_its_units_once() {
    let redis = shared_redis().await;
    let (one, two) = (coordinator_on(redis).await, coordinator_on(redis).await);
    let wanted = chairs("restocked");
    one.sales.create(&wanted, by_test()).await.unwrap();
    let (first, second) = (restock("a", 25), restock("b", 25));
    let (_, _) = tokio::join!(
        one.sales.change(&wanted.id, &first, by_test()),
        two.sales.change(&wanted.id, &second, by_test())
    );
    for change in [&first, &second, &first] {
        two.sales.change(&wanted.id, change, by_test()).await.unwrap();
    }
    assert_clean(&one, &wanted.id, 150).await;
    let stock: u64 = levels(&one, &wanted.id).await.iter().map(|level| level.stock).sum();
    assert_eq!(stock, 150);
    assert!(
        !one.sales.create(&wanted, by_test()).await.unwrap().is_new,
        "it is still the sale that was asked for"
    );
}

#[tokio::test]
async fn concurrent_changes_are_all_made_or_refused() {
    let redis = shared_redis().await;
    let coordinators =
        [coordinator_on(redis).await, coordinator_on(redis).await, coordinator_on(redis).await];
    let wanted = NewSale { shards: Some(3), ..chairs("several") };
    coordinators[0].sales.create(&wanted, by_test()).await.unwrap();
    let restocks = ["a", "b", "c"].map(|key| restock(key, 10));
    let made = coordinators
        .iter()
        .zip(&restocks)
        .map(|(coordinator, change)| coordinator.sales.change(&wanted.id, change, by_test()));
    for outcome in futures::future::join_all(made).await {
        assert!(matches!(outcome, Ok(_) | Err(OperationError::Contended)), "{:?}", outcome.err());
    }
    for change in &restocks {
        coordinators[0].sales.change(&wanted.id, change, by_test()).await.unwrap();
    }
    let sale = coordinators[0].sales.existing(&wanted.id).await.unwrap().sale;
    assert_eq!((sale.config.total_stock, sale.config.state), (130, SaleState::Open));
    assert_clean(&coordinators[0], &wanted.id, 130).await;
}
