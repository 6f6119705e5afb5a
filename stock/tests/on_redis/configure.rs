//! `configure`: only newer settings apply, and only a sale that is being created makes shards.

use stock::calls::{BuyOutcome, CallError, Configure};
use stock::ids::ShardId;
use stock::sale::{LayoutConfig, Sale, SaleConfig, SaleState, ShardSettings, Window};

use crate::stage::{ALL_THE_TIME, IN_THE_PAST, TestSale, attempts, claim, on_another_ring};

#[tokio::test]
async fn newer_settings_apply_and_older_ones_do_not() {
    let sale = TestSale::selling(5).await;

    assert_eq!(sale.configure(7, SaleState::Paused, ALL_THE_TIME).await, 7);
    assert_eq!(sale.buys("ann").await, BuyOutcome::NotOpen);

    assert_eq!(sale.configure(6, SaleState::Open, ALL_THE_TIME).await, 7, "a late word opened a paused sale");
    assert_eq!(sale.buys("ann").await, BuyOutcome::NotOpen);

    assert_eq!(sale.configure(8, SaleState::Open, ALL_THE_TIME).await, 8);
    claim(sale.buys("ann").await);
}

#[tokio::test]
async fn other_settings_of_the_held_version_are_replaced() {
    let sale = TestSale::selling(5).await;
    sale.configure(7, SaleState::Paused, ALL_THE_TIME).await;

    sale.configure(7, SaleState::Open, ALL_THE_TIME).await;
    claim(sale.buys("ann").await);

    sale.configure(7, SaleState::Open, IN_THE_PAST).await;
    assert_eq!(sale.buys("bob").await, BuyOutcome::NotOpen);
}

#[tokio::test]
async fn the_answer_names_the_settings_that_are_held() {
    let sale = TestSale::selling(5).await;
    let configure = |version, state, window| Configure { shard: sale.shard(), version, state, window };
    let paused = ShardSettings { version: 7, state: SaleState::Paused, window: IN_THE_PAST };

    assert_eq!(sale.cluster.write(configure(7, SaleState::Paused, IN_THE_PAST)).await, Ok(paused));
    assert_eq!(sale.cluster.write(configure(6, SaleState::Open, ALL_THE_TIME)).await, Ok(paused));
    assert_eq!(sale.level().await.settings, paused);
}

#[tokio::test]
async fn a_repeated_version_can_be_proven() {
    let sale = TestSale::selling(5).await;
    sale.configure(3, SaleState::Open, IN_THE_PAST).await;
    let before = sale.tick().await;

    sale.configure(3, SaleState::Open, IN_THE_PAST).await;

    assert_eq!(sale.tick().await, before + 1, "a repeated version must write, or its barrier proves nothing");
}

#[tokio::test]
async fn every_setting_arrives() {
    let sale = TestSale::selling(5).await;

    sale.configure(3, SaleState::Ended, Window { starts_at: 1_700_000_000_001, ends_at: 1_700_000_000_002 })
        .await;

    assert_eq!(sale.meta("state").await, "ended");
    assert_eq!(sale.meta("starts_at").await, "1700000000001");
    assert_eq!(sale.meta("ends_at").await, "1700000000002");
    assert_eq!(sale.level().await.settings.version, 3);
}

#[tokio::test]
async fn creating_makes_a_shard_that_holds_nothing() {
    let sale = TestSale::planned(1).await;

    assert_eq!(sale.configure(3, SaleState::Creating, ALL_THE_TIME).await, 3);

    let level = sale.level().await;
    assert_eq!((level.settings.version, level.stock, level.sold, level.seq), (3, 0, 0, 0));
    assert_eq!(level.ring, sale.shard().ring.as_str());
    assert_eq!(sale.tick().await, 0);
    assert_eq!(sale.buys("ann").await, BuyOutcome::NotOpen);
}

#[tokio::test]
async fn no_other_state_makes_a_shard() {
    let sale = TestSale::planned(1).await;
    for state in [SaleState::Open, SaleState::Paused, SaleState::Ended] {
        let configure = Configure { shard: sale.shard(), version: 3, state, window: ALL_THE_TIME };
        assert_eq!(sale.cluster.write(configure).await, Err(CallError::NoShard), "{state:?}");
    }
    assert_eq!(
        sale.contents().await,
        (vec![], vec![], vec![]),
        "a shard that was lost was made anew, to be sold twice"
    );
}

#[tokio::test]
async fn creating_a_shard_again_leaves_what_was_sold() {
    let sale = TestSale::selling(5).await;
    sale.try_together(&attempts(["ann", "bob"])).await;
    let before = (sale.level().await.stock, sale.entries().await, sale.claim_of("ann").await);

    assert_eq!(sale.configure(1, SaleState::Creating, ALL_THE_TIME).await, 2);
    for state in [SaleState::Creating, SaleState::Open] {
        assert_eq!(sale.configure(2, state, ALL_THE_TIME).await, 2);
    }

    assert_eq!((sale.level().await.stock, sale.entries().await, sale.claim_of("ann").await), before);
    claim(sale.buys("cid").await);
}

#[tokio::test]
async fn another_creation_of_the_same_name_gets_no_shard_of_the_first() {
    let first = TestSale::selling(5).await;
    let tags = first.sale.config.layout.tags.clone();
    let again = SaleConfig { layout: LayoutConfig::new(tags), ..(*first.sale.config).clone() };
    let again = Sale::new(again).unwrap();
    let shard = again.shard(ShardId::new(0));
    assert_eq!(shard.meta, first.shard().meta, "the keys are the same");

    let creating = Configure { shard, version: 1, state: SaleState::Creating, window: ALL_THE_TIME };
    let told = first.cluster.write(creating).await;

    assert!(matches!(told, Err(CallError::WrongRing(_))), "told {told:?}");
}

#[tokio::test]
async fn settings_of_another_ring_do_not_apply() {
    let sale = TestSale::selling(5).await;
    let shard = on_another_ring(sale.shard());

    let ended = Configure { shard: &shard, version: 9, state: SaleState::Ended, window: ALL_THE_TIME };
    let refused = sale.cluster.write(ended).await;

    assert!(matches!(refused, Err(CallError::WrongRing(_))), "told {refused:?}");
    claim(sale.buys("ann").await);
}
