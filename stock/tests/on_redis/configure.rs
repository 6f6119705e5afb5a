//! `configure`: only newer settings apply, and only a sale in the state `creating` creates shards.

use rediscluster::CallError;
use stock::calls::{Accept, BuyOutcome, Configure, Donate, Find, TokenSource};
use stock::functions::Function;
use stock::ids::ShardId;
use stock::layout::{Incarnation, Shard};
use stock::sale::{LayoutConfig, Sale, SaleConfig, SaleState, ShardSettings, Window};
use stock::snapshot::Confirm;

use crate::fixture::{
    ALWAYS, IN_THE_PAST, Raw, TestSale, attempts, buying, claim, user_id, with_another_ring,
};

/// Calls a function with these keys and arguments, as a program with its own code would. Returns the refusal.
async fn refusal(sale: &TestSale, function: Function, keys: &[&str], args: &[&str]) -> String {
    let mut cmd = redis::cmd("FCALL");
    cmd.arg(function.function()).arg(keys.len()).arg(keys).arg(args);
    sale.cluster.read(Raw { slot: sale.shard().slot, cmd: &cmd }).await.unwrap_err().to_string()
}

#[tokio::test]
async fn operations_of_coordinators_need_the_control_key() {
    let sale = TestSale::selling(5).await;
    let Shard { meta, claims, orders, ring, .. } = &sale.shard().clone();
    let (meta, claims, orders, ring) = (meta.as_str(), claims.as_str(), orders.as_str(), ring.as_str());
    let before = sale.contents().await;

    for keys in [&[meta, claims, orders][..], &[meta, claims, orders, meta], &[meta, claims, orders, claims]]
    {
        let refused =
            refusal(&sale, Function::Configure, keys, &[ring, "999", "paused", "0", "1", "x"]).await;
        assert!(refused.contains("NOTCONTROL"), "{refused}");
    }
    for keys in [&[meta][..], &[meta, meta], &[meta, claims]] {
        let refused = refusal(&sale, Function::Mint, keys, &[ring, "1000000"]).await;
        assert!(refused.contains("NOTCONTROL"), "{refused}");
    }
    let refused = refusal(&sale, Function::Accept, &[meta], &[ring, "mint", "1000000"]).await;
    assert!(refused.contains("NOTASHARD"), "{refused}");
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn newer_settings_apply_and_older_are_ignored() {
    let sale = TestSale::selling(5).await;

    assert_eq!(sale.configure(7, SaleState::Paused, ALWAYS).await, 7);
    assert_eq!(sale.buy("ann").await, BuyOutcome::NotOpen);

    assert_eq!(sale.configure(6, SaleState::Open, ALWAYS).await, 7, "an older version opened a paused sale");
    assert_eq!(sale.buy("ann").await, BuyOutcome::NotOpen);

    assert_eq!(sale.configure(8, SaleState::Open, ALWAYS).await, 8);
    claim(sale.buy("ann").await);
}

#[tokio::test]
async fn different_settings_of_the_same_version_apply() {
    let sale = TestSale::selling(5).await;
    sale.configure(7, SaleState::Paused, ALWAYS).await;

    sale.configure(7, SaleState::Open, ALWAYS).await;
    claim(sale.buy("ann").await);

    sale.configure(7, SaleState::Open, IN_THE_PAST).await;
    assert_eq!(sale.buy("bob").await, BuyOutcome::NotOpen);
}

#[tokio::test]
async fn configure_answers_the_settings_of_the_shard() {
    let sale = TestSale::selling(5).await;
    let configure = |version, state, window| Configure { shard: sale.shard(), version, state, window };
    let paused = ShardSettings { version: 7, state: SaleState::Paused, window: IN_THE_PAST };

    for given in [configure(7, SaleState::Paused, IN_THE_PAST), configure(6, SaleState::Open, ALWAYS)] {
        assert_eq!(sale.cluster.write(given).await.unwrap().settings, paused);
    }
    assert_eq!(sale.level().await.settings, paused);
}

#[tokio::test]
async fn repeated_version_writes_tick() {
    let sale = TestSale::selling(5).await;
    sale.configure(3, SaleState::Open, IN_THE_PAST).await;
    let before = sale.tick().await;

    sale.configure(3, SaleState::Open, IN_THE_PAST).await;

    assert_eq!(sale.tick().await, before + 1, "a repeated version must write, or its barrier proves nothing");
}

#[tokio::test]
async fn configure_writes_every_setting() {
    let sale = TestSale::selling(5).await;

    let window = Window { starts_at: 1_700_000_000_001, ends_at: 1_700_000_000_002 };
    sale.configure(3, SaleState::Ended, window).await;

    assert_eq!(sale.meta("state").await, "ended");
    assert_eq!(sale.meta("starts_at").await, "1700000000001");
    assert_eq!(sale.meta("ends_at").await, "1700000000002");
    assert_eq!(sale.level().await.settings.version, 3);
}

#[tokio::test]
async fn creating_makes_an_empty_shard() {
    let sale = TestSale::planned(1).await;

    assert_eq!(sale.configure(3, SaleState::Creating, ALWAYS).await, 3);

    let level = sale.level().await;
    assert_eq!((level.settings.version, level.stock, level.sold, level.seq), (3, 0, 0, 0));
    assert!(sale.shard().accepts(&level.ring), "{}", level.ring);
    assert_eq!(sale.tick().await, 0);
    assert_eq!(sale.buy("ann").await, BuyOutcome::NotOpen);
}

#[tokio::test]
async fn other_states_do_not_create_a_shard() {
    let sale = TestSale::planned(1).await;
    for state in [SaleState::Open, SaleState::Paused, SaleState::Ended] {
        let configure = Configure { shard: sale.shard(), version: 3, state, window: ALWAYS };
        assert_eq!(sale.cluster.write(configure).await, Err(CallError::NoShard), "{state:?}");
    }
    // A shard that was lost is not made anew, to be sold twice.
    assert_eq!(sale.contents().await, (vec![], vec![], vec![]));
}

/// Sends a call that may create the shard, and returns the shard as the record of the open sale names it.
async fn created(sale: &TestSale) -> (Sale, Incarnation) {
    let configure = Configure { shard: sale.shard(), version: 1, state: SaleState::Creating, window: ALWAYS };
    let incarnation = sale.cluster.write(configure).await.unwrap().incarnation;
    let config = &*sale.sale.config;
    let layout = LayoutConfig { incarnations: vec![incarnation.clone()], ..config.layout.clone() };
    (sale.sale.at(SaleConfig { layout, ..config.clone() }).unwrap(), incarnation)
}

#[tokio::test]
async fn shard_made_again_is_refused_once_open() {
    // Given a shard that was opened, lost, and made and filled again by a late call.
    let sale = TestSale::planned(1).await;
    let (opened, first) = created(&sale).await;
    assert_eq!(created(&sale).await.1, first, "a repeated call must not replace the shard");
    let shard = opened.shard(ShardId::new(0));
    let open = Configure { shard, version: 2, state: SaleState::Open, window: ALWAYS };
    sale.cluster.write(open.clone()).await.unwrap();
    sale.query::<u64>(redis::cmd("DEL").arg(&shard.meta).arg(&shard.claims).arg(&shard.orders)).await;
    let (again, second) = created(&sale).await;
    assert_ne!(first, second);
    let mint = Accept { shard: sale.shard(), from: TokenSource::Mint, cumulative: 100 };
    assert_eq!(sale.cluster.write(mint.clone()).await.unwrap().stock, 100);

    // Then it refuses every call for the open sale, so that nothing is sold twice.
    let before = sale.contents().await;
    let (cluster, attempt) = (&sale.cluster, attempts(["ann"]));
    let refusals = [
        cluster.write(open).await.err(),
        cluster.write(Accept { shard, ..mint }).await.err(),
        cluster.write(Donate { shard, to: ShardId::new(1), want: 1 }).await.err(),
        cluster.write(buying(shard, &attempt)).await.err(),
        cluster.write(Find { shard, users: &[user_id("ann")] }).await.err(),
        cluster.write(Confirm { shard }).await.err(),
    ];
    for refusal in &refusals {
        assert!(matches!(refusal, Some(CallError::WrongRing(_))), "{refusals:?}");
    }
    assert_eq!(sale.contents().await, before);

    // And it is the shard of a sale that names it.
    let open = Configure { shard: again.shard(shard.id), version: 2, state: SaleState::Open, window: ALWAYS };
    assert_eq!(cluster.write(open).await.unwrap().incarnation, second);
}

#[tokio::test]
async fn creating_again_keeps_stock_and_claims() {
    let sale = TestSale::selling(5).await;
    sale.buy_batch(&attempts(["ann", "bob"])).await;
    let before = (sale.level().await.stock, sale.entries().await, sale.claim_of("ann").await);

    assert_eq!(sale.configure(1, SaleState::Creating, ALWAYS).await, 2);
    for state in [SaleState::Creating, SaleState::Open] {
        assert_eq!(sale.configure(2, state, ALWAYS).await, 2);
    }

    assert_eq!((sale.level().await.stock, sale.entries().await, sale.claim_of("ann").await), before);
    claim(sale.buy("cid").await);
}

#[tokio::test]
async fn another_creation_does_not_take_over_shards() {
    let first = TestSale::selling(5).await;
    let tags = first.sale.config.layout.tags.clone();
    let again = SaleConfig { layout: LayoutConfig::new(tags), ..(*first.sale.config).clone() };
    let again = Sale::new(again).unwrap();
    let shard = again.shard(ShardId::new(0));
    assert_eq!(shard.meta, first.shard().meta, "the keys are the same");

    let creating = Configure { shard, version: 1, state: SaleState::Creating, window: ALWAYS };
    let answer = first.cluster.write(creating).await;

    assert!(matches!(answer, Err(CallError::WrongRing(_))), "got {answer:?}");
}

#[tokio::test]
async fn configure_with_another_ring_is_refused() {
    let sale = TestSale::selling(5).await;
    let shard = with_another_ring(sale.shard());

    let ended = Configure { shard: &shard, version: 9, state: SaleState::Ended, window: ALWAYS };
    let refused = sale.cluster.write(ended).await;

    assert!(matches!(refused, Err(CallError::WrongRing(_))), "got {refused:?}");
    claim(sale.buy("ann").await);
}
