//! A pair loses its disks, and with them the sales in its shards, which no replica has. The rest of the sale goes on.

use std::time::Duration;

use testkit::until;

use crate::fixture::{TesterFixture, UNITS};

/// Purchases in each shard before the loss.
const SOLD_BEFORE: usize = 5;

/// Time limit for the leading coordinator to notice the missing shard.
const STEP_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn losing_disks_affects_only_their_shards() {
    // Given a sale with purchases in each of its three shards.
    let fixture = TesterFixture::intact().await;
    for shard in 0..3 {
        fixture.buy_at(shard, SOLD_BEFORE).await;
    }

    // When a pair that holds one shard, and no record of the sale, loses its disks, and nodes and coordinators restart.
    let lost = shard_without_records(&fixture).await;
    let (primary, replica) = fixture.pair_of(lost).await;
    fixture.stack.redis().lose_data(&[primary, replica]).await.unwrap();
    fixture.stack.redis().wait_until_whole().await.unwrap();
    for coordinator in fixture.stack.coordinators() {
        coordinator.restart().await.unwrap();
    }
    for node in fixture.stack.nodes() {
        node.restart().await.unwrap();
    }

    // Then the shard is reported and does not sell again: its tokens may have been sold before.
    let reported =
        async || fixture.problems().await.iter().any(|problem| problem.contains(&lost.to_string()));
    until("the lost shard among the problems", STEP_LIMIT, reported).await.unwrap();
    let lost_buyer = fixture.buyer_at(lost);
    assert!(!fixture.try_once(&lost_buyer, "first").await.is_definite(), "a lost shard sold again");

    // And the other shards sell their units, at most one to each user, and no more than exist.
    for shard in (0..3).filter(|shard| *shard != lost) {
        let units = fixture.crowd.sale().split(UNITS)[usize::from(shard)] as usize;
        fixture.buy_at(shard, units - SOLD_BEFORE).await;
    }
    assert!(!fixture.try_once(&lost_buyer, "first").await.is_definite(), "a lost shard sold again");
    let found = fixture.violations_outside(lost).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
    let purchases = fixture.crowd.counts().purchases;
    assert!(purchases <= UNITS, "{purchases} of {UNITS} units are sold");
}

async fn shard_without_records(fixture: &TesterFixture) -> u16 {
    let redis = fixture.stack.redis();
    let keys = stock::layout::SaleKeys::new(fixture.crowd.sale().id());
    let slots = [keys.slot, rediscluster::slot_of_tag(stock::layout::SALES_KEY)];
    for shard in 0..3 {
        let primary = redis.primary_of(fixture.shard(shard).slot).await.unwrap();
        let holds = async |slot| redis.primary_of(slot).await.unwrap() == primary;
        if !holds(slots[0]).await && !holds(slots[1]).await {
            return shard;
        }
    }
    panic!("two records cannot be on three primaries")
}
