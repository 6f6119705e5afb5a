//! `find` and `level`: what was sold and to whom, without changing it.

use stock::calls::{CallError, Find, ReadLevel, TokenSource};
use stock::ids::{ShardId, UserId};
use stock::snapshot::{Snapshot, read_levels};

use crate::stage::{TestSale, attempts, claim, clock_of, on_another_ring, user_id};

#[tokio::test]
async fn claims_are_found_in_the_order_in_which_users_were_asked_for() {
    let sale = TestSale::selling(5).await;
    let purchases = sale.try_together(&attempts(["ann", "bob"])).await;
    let users = ["nobody", "bob", "ann", "bob"].map(user_id);

    let found = sale.cluster.write(Find { shard: sale.shard(), users: &users }).await.unwrap();

    let [ann, bob] = [0, 1].map(|buyer| Some(claim(purchases.outcomes[buyer])));
    assert_eq!(found, [None, bob, ann, bob]);
}

#[tokio::test]
async fn a_claim_that_was_found_can_be_proven_and_one_that_was_not_costs_no_write() {
    let sale = TestSale::selling(5).await;
    claim(sale.buys("ann").await);

    assert_eq!(sale.claim_of("nobody").await, None);
    assert_eq!(sale.tick().await, 0);

    assert!(sale.claim_of("ann").await.is_some());
    assert_eq!(sale.tick().await, 1);
}

#[tokio::test]
async fn the_largest_call_finds_everybody() {
    let sale = TestSale::selling(100).await;
    let names: Vec<String> = (0..64).map(|n| format!("user-{n}")).collect();
    sale.try_together(&attempts(names.iter().map(String::as_str))).await;
    let users: Vec<UserId> = names.iter().map(|name| user_id(name)).collect();

    let found = sale.cluster.write(Find { shard: sale.shard(), users: &users }).await.unwrap();

    assert!(found.iter().all(Option::is_some) && found.len() == 64);
    assert_eq!(sale.tick().await, 1, "one write a call is enough for the barrier");
}

#[tokio::test]
async fn a_level_is_all_of_the_shard_s_books_and_reading_it_writes_nothing() {
    let sale = TestSale::over_shards(&[10, 0, 0]).await;
    sale.try_together(&attempts(["ann", "bob"])).await;
    for to in [1, 2] {
        let donate = stock::calls::Donate { shard: sale.shard(), to: ShardId::new(to), want: u64::from(to) };
        sale.cluster.write(donate).await.unwrap();
    }
    let back = stock::calls::Accept {
        shard: sale.shard(),
        from: TokenSource::Shard(ShardId::new(2)),
        cumulative: 1,
    };
    sale.cluster.write(back).await.unwrap();
    let before = sale.contents().await;

    let level = sale.level().await;

    assert_eq!((level.settings.version, level.stock, level.sold, level.seq), (2, 10 - 2 - 3 + 1, 2, 1));
    assert_eq!(level.donated, [(ShardId::new(1), 1), (ShardId::new(2), 2)]);
    assert_eq!(level.accepted, [(TokenSource::Mint, 10), (TokenSource::Shard(ShardId::new(2)), 1)]);
    assert!(level.at > 1_700_000_000_000, "Redis' clock in milliseconds, not {}", level.at);
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn what_does_not_exist_or_has_another_ring_is_not_read_as_empty() {
    let sale = TestSale::selling(5).await;
    let missing = TestSale::planned(1).await;
    let users = [user_id("ann")];

    let read = sale.cluster.read(ReadLevel { shard: missing.shard() }).await;
    assert_eq!(read, Err(CallError::NoShard));
    let found = sale.cluster.read(Find { shard: missing.shard(), users: &users }).await;
    assert_eq!(found, Err(CallError::NoShard));
    let found = sale.cluster.read(Find { shard: &on_another_ring(sale.shard()), users: &users }).await;
    assert!(matches!(found, Err(CallError::WrongRing(_))), "told {found:?}");
}

#[tokio::test]
async fn a_snapshot_is_the_sum_of_all_shards() {
    let sale = TestSale::over_shards(&[7, 5, 3]).await;
    claim(sale.buys("ann").await);
    let donate = stock::calls::Donate { shard: sale.shard(), to: ShardId::new(1), want: 2 };
    sale.cluster.write(donate).await.unwrap();
    let before = clock_of(&sale).await;

    let levels = read_levels(&sale.cluster, &sale.sale).await;
    let snapshot = Snapshot::of(&sale.sale, &levels, None);

    assert_eq!((snapshot.total, snapshot.sold, snapshot.stock, snapshot.in_flight), (15, 1, 12, 2));
    assert!(snapshot.taken_at >= before);
    assert_eq!(snapshot.shards.iter().map(|shard| shard.stock).collect::<Vec<_>>(), [4, 5, 3]);
}
