//! A pair's disks are lost, and what was sold there with them: no replica outlives that. The rest of the sale goes on.

use std::time::Duration;

use chaos::RequestOutcome;
use testkit::until;

use crate::fixture::{TesterFixture, UNITS};

/// Purchases in each shard before.
const SOLD_BEFORE: usize = 5;

/// Missing shards are seen with the next look of the coordinator that leads.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_loses_its_disks_costs_only_its_own_shards() {
    // Given a sale that has sold some in each of three shards.
    let scene = TesterFixture::sound().await;
    for shard in 0..3 {
        scene.neighbours_buy(shard, SOLD_BEFORE).await;
    }

    // When a pair that holds one shard, and no record of the sale, loses its disks, and then everything else restarts.
    let lost = shard_apart_from_the_record(&scene).await;
    let (primary, replica) = scene.pair_of(lost).await;
    scene.stack.redis().lose_data(&[primary, replica]).await.unwrap();
    scene.stack.redis().wait_until_whole().await.unwrap();
    for coordinator in scene.stack.coordinators() {
        coordinator.restart().await.unwrap();
    }
    for node in scene.stack.nodes() {
        node.restart().await.unwrap();
    }

    // Then the shard is reported and stays away: its tokens may have been sold.
    let reported = async || scene.problems().await.iter().any(|problem| problem.contains(&lost.to_string()));
    until("the lost shard among the problems", SOON, reported).await.unwrap();
    let orphan = scene.somebody_at(lost);
    assert!(
        matches!(scene.tries(&orphan, "hers").await, RequestOutcome::Nothing(_)),
        "a lost shard sold again"
    );

    // And the others sell what they have, to nobody twice, and no more than there was.
    for shard in (0..3).filter(|shard| *shard != lost) {
        let units = scene.shop.sale().split(UNITS)[usize::from(shard)] as usize;
        scene.neighbours_buy(shard, units - SOLD_BEFORE).await;
    }
    assert!(
        matches!(scene.tries(&orphan, "hers").await, RequestOutcome::Nothing(_)),
        "a lost shard sold again"
    );
    let found = scene.violations_apart_from(lost).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
    let purchases = scene.shop.counts().purchases;
    assert!(purchases <= UNITS, "{purchases} of {UNITS} units are sold");
}

async fn shard_apart_from_the_record(scene: &TesterFixture) -> u16 {
    let redis = scene.stack.redis();
    let keys = stock::layout::SaleKeys::new(scene.shop.sale().id());
    let slots = [keys.slot, stock::layout::slot_of_tag(stock::layout::SALES_KEY)];
    for shard in 0..3 {
        let primary = redis.primary_of(scene.shard(shard).slot).await.unwrap();
        let holds = async |slot| redis.primary_of(slot).await.unwrap() == primary;
        if !holds(slots[0]).await && !holds(slots[1]).await {
            return shard;
        }
    }
    panic!("two records cannot lie on three primaries")
}
