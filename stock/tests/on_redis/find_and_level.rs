//! `find` and `level`: reading claims and counters.

use rediscluster::CallError;
use stock::calls::{Accept, Donate, Find, ReadLevel, TokenSource};
use stock::ids::{ShardId, UserId};
use stock::snapshot::{Snapshot, read_levels};

use crate::fixture::{TestSale, attempts, claim, server_clock, user_id, with_another_ring};

#[tokio::test]
async fn find_answers_in_order_of_the_users() {
    let sale = TestSale::selling(5).await;
    let purchases = sale.buy_batch(&attempts(["ann", "bob"])).await;
    let users = ["stranger", "bob", "ann", "bob"].map(user_id);

    let found = sale.cluster.write(Find { shard: sale.shard(), users: &users }).await.unwrap();

    let [ann, bob] = [0, 1].map(|buyer| Some(claim(purchases.outcomes[buyer])));
    assert_eq!(found, [None, bob, ann, bob]);
}

#[tokio::test]
async fn find_writes_tick_only_for_claims() {
    let sale = TestSale::selling(5).await;
    claim(sale.buy("ann").await);

    assert_eq!(sale.claim_of("stranger").await, None);
    assert_eq!(sale.tick().await, 0);

    assert!(sale.claim_of("ann").await.is_some());
    assert_eq!(sale.tick().await, 1);
}

#[tokio::test]
async fn largest_find_call_finds_all_users() {
    let sale = TestSale::selling(100).await;
    let names: Vec<String> = (0..64).map(|n| format!("user-{n}")).collect();
    sale.buy_batch(&attempts(names.iter().map(String::as_str))).await;
    let users: Vec<UserId> = names.iter().map(|name| user_id(name)).collect();

    let found = sale.cluster.write(Find { shard: sale.shard(), users: &users }).await.unwrap();

    assert!(found.iter().all(Option::is_some) && found.len() == 64);
    assert_eq!(sale.tick().await, 1, "one write a call is enough for the barrier");
}

#[tokio::test]
async fn level_reads_all_counters_and_writes_nothing() {
    let sale = TestSale::over_shards(&[10, 0, 0]).await;
    sale.buy_batch(&attempts(["ann", "bob"])).await;
    for to in [1, 2] {
        let donate = Donate { shard: sale.shard(), to: ShardId::new(to), want: u64::from(to) };
        sale.cluster.write(donate).await.unwrap();
    }
    let from = TokenSource::Shard(ShardId::new(2));
    sale.cluster.write(Accept { shard: sale.shard(), from, cumulative: 1 }).await.unwrap();
    let before = sale.contents().await;

    let level = sale.level().await;

    assert_eq!((level.settings.version, level.stock, level.sold, level.seq), (2, 10 - 2 - 3 + 1, 2, 1));
    assert_eq!(level.donated, [(ShardId::new(1), 1), (ShardId::new(2), 2)]);
    assert_eq!(level.accepted, [(TokenSource::Mint, 10), (TokenSource::Shard(ShardId::new(2)), 1)]);
    assert!(level.at > 1_700_000_000_000, "Redis' clock in milliseconds, not {}", level.at);
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn reads_fail_without_shard_or_ring() {
    let sale = TestSale::selling(5).await;
    let missing = TestSale::planned(1).await;
    let users = [user_id("ann")];

    let read = sale.cluster.read(ReadLevel { shard: missing.shard() }).await;
    assert_eq!(read, Err(CallError::NoShard));
    let found = sale.cluster.read(Find { shard: missing.shard(), users: &users }).await;
    assert_eq!(found, Err(CallError::NoShard));
    let found = sale.cluster.read(Find { shard: &with_another_ring(sale.shard()), users: &users }).await;
    assert!(matches!(found, Err(CallError::WrongRing(_))), "got {found:?}");
}

#[tokio::test]
async fn snapshot_sums_all_shards() {
    let sale = TestSale::over_shards(&[7, 5, 3]).await;
    claim(sale.buy("ann").await);
    let donate = Donate { shard: sale.shard(), to: ShardId::new(1), want: 2 };
    sale.cluster.write(donate).await.unwrap();
    let before = server_clock(&sale).await;

    let levels = read_levels(&sale.cluster, &sale.sale).await;
    let snapshot = Snapshot::of(&sale.sale, &levels, None);

    assert_eq!((snapshot.total, snapshot.sold, snapshot.stock, snapshot.in_flight), (15, 1, 12, 2));
    assert!(snapshot.taken_at >= before);
    assert_eq!(snapshot.shards.iter().map(|shard| shard.stock).collect::<Vec<_>>(), [4, 5, 3]);
}
