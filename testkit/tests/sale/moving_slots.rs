//! Moves of a shard's slot to another primary during an open sale.

use std::net::SocketAddr;

use stock::ids::ShardId;

use crate::fixture::{OpenSale, assert_repeats_recognized, buy_at};

#[tokio::test(flavor = "multi_thread")]
async fn slot_stays_when_target_is_not_replicated() {
    // Given a shard with purchases, and another primary whose replica has lost its link.
    let (sale, users, mut answers) = OpenSale::start_with_purchases(3_600, 300).await;
    let redis = sale.stack.redis();
    let (slot, from, to) = plan_move(&sale).await;
    redis.cut_replication(to).await.unwrap();

    // When the shard's slot is moved there, and that primary dies.
    let moved = redis.move_slot(slot, to).await;
    redis.kill(to);

    // Then each buyer gets the same order again.
    answers.extend(buy_at(&sale.node_url(), &users).await);
    assert_repeats_recognized(&answers);

    // And the error names the reason why the slot stayed.
    let refused = format!("{:#}", moved.unwrap_err());
    assert!(refused.contains(&format!("slot {slot} stays at {from}")), "{refused}");
    assert!(refused.contains("is not replicated: 0 of 1 replicas follow"), "{refused}");
    assert_eq!(redis.primary_of(slot).await.unwrap(), from);
}

#[tokio::test(flavor = "multi_thread")]
async fn move_fails_when_replica_does_not_confirm() {
    // Given a primary whose replica is connected but frozen.
    let (sale, ..) = OpenSale::start_with_purchases(120, 10).await;
    let redis = sale.stack.redis();
    let (slot, from, to) = plan_move(&sale).await;
    let replica = redis.replicas_of(to).await[0];
    redis.freeze(replica);

    let moved = redis.move_slot(slot, to).await;

    // Valkey itself asks its replicas before a slot moves, so the slot stays there.
    let failed = format!("{:#}", moved.unwrap_err());
    let is_unreplicated =
        failed.contains(&format!("slot {slot} is at {to}, but its keys may not be replicated"));
    assert!(is_unreplicated || redis.primary_of(slot).await.unwrap() == from, "{failed}");
    redis.thaw(replica);
}

/// The slot of the first shard, its primary and another primary.
async fn plan_move(sale: &OpenSale) -> (u16, SocketAddr, SocketAddr) {
    let redis = sale.stack.redis();
    let slot = sale.sale.shard(ShardId::new(0)).slot;
    let from = redis.primary_of(slot).await.unwrap();
    let to = redis.primaries().await.into_iter().find(|primary| *primary != from).unwrap();
    (slot, from, to)
}
