//! A shard's slot moves to another primary while a sale is open.

use std::net::SocketAddr;
use std::time::Duration;

use stock::ids::ShardId;
use testkit::{BuyerAnswer, Buyers};

use crate::actors::{OpenSale, assert_repeats_recognised, purchases, users_at_home_in, wishes};

/// How long a buyer keeps trying: longer than the cluster needs to replace a server.
const PERSISTENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_stays_where_it_is_when_its_target_is_not_replicated() {
    // Given a shard with purchases, and another primary whose replica has lost its link.
    let (sale, mut answers) = with_purchases(300).await;
    let redis = sale.stack.redis();
    let (slot, from, to) = a_move(&sale).await;
    redis.cut_replication(to).await.unwrap();

    // When the shard's slot is to move there, and that primary dies.
    let moved = redis.move_slot(slot, to).await;
    redis.kill(to);

    // Then each buyer is told of the same order.
    let node = sale.stack.nodes()[0].url().to_owned();
    let users: Vec<String> = answers.iter().map(|answer| answer.user.clone()).collect();
    answers.extend(Buyers::new(8).buy_persistently(wishes(&users, &node), PERSISTENCE).await);
    assert_repeats_recognised(&answers);

    // And the operator was told why the slot stayed.
    let refused = format!("{:#}", moved.unwrap_err());
    assert!(refused.contains(&format!("slot {slot} stays at {from}")), "{refused}");
    assert!(refused.contains("is not replicated: 0 of 1 replicas follow"), "{refused}");
    assert_eq!(redis.primary_of(slot).await.unwrap(), from);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_fails_when_the_replica_does_not_confirm_the_keys() {
    // Given a primary whose replica has its link and does not answer.
    let (sale, _) = with_purchases(10).await;
    let redis = sale.stack.redis();
    let (slot, from, to) = a_move(&sale).await;
    let replica = redis.replicas_of(to).await[0];
    redis.freeze(replica);

    let moved = redis.move_slot(slot, to).await;

    // Valkey asks its replicas itself before a slot may move, so there it stays.
    let failed = format!("{:#}", moved.unwrap_err());
    let may_be_alone = failed.contains(&format!("slot {slot} is at {to}, and its keys may be there alone"));
    assert!(may_be_alone || redis.primary_of(slot).await.unwrap() == from, "{failed}");
    redis.thaw(replica);
}

/// An open sale with so many purchases in its first shard.
async fn with_purchases(count: usize) -> (OpenSale, Vec<BuyerAnswer>) {
    let sale = OpenSale::of(12 * count as u64).await;
    let node = sale.stack.nodes()[0].url().to_owned();
    let users = users_at_home_in(&sale.sale, ShardId::new(0), count);
    let answers = Buyers::new(8).buy_persistently(wishes(&users, &node), PERSISTENCE).await;
    assert_eq!(purchases(&answers).len(), count);
    (sale, answers)
}

/// The first shard's slot, its primary and another one.
async fn a_move(sale: &OpenSale) -> (u16, SocketAddr, SocketAddr) {
    let redis = sale.stack.redis();
    let slot = sale.sale.shard(ShardId::new(0)).slot;
    let from = redis.primary_of(slot).await.unwrap();
    let to = redis.primaries().await.into_iter().find(|primary| *primary != from).unwrap();
    (slot, from, to)
}
