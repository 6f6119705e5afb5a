//! The barriers: what no replica has may be forgotten, so nothing may rest on it.

use chaos::RequestOutcome;

use crate::fixture::{TesterFixture, assert_clean, assert_names};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_barrier_before_purchased_a_purchase_is_forgotten() {
    let scene = TesterFixture::with("no-b1").await;
    let heard = buys_what_a_failover_forgets(&scene).await;

    assert_eq!(heard, RequestOutcome::Bought, "the barrier is still there");
    let verdict = scene.verdict().await;
    assert_names(&verdict, "what was told to be bought is a claim, by that very order");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_barrier_nobody_is_told_of_a_purchase_that_is_forgotten() {
    let scene = TesterFixture::sound().await;
    let heard = buys_what_a_failover_forgets(&scene).await;

    assert!(matches!(heard, RequestOutcome::Nothing(_)), "told {heard:?} of what no replica has");
    assert_clean(&scene.verdict().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_barrier_before_accept_tokens_are_there_twice() {
    let scene = TesterFixture::with("no-b2").await;
    let heard = steals_what_a_failover_brings_back(&scene).await;

    assert_eq!(heard, RequestOutcome::Bought, "the barrier is still there");
    let verdict = scene.verdict().await;
    assert_names(&verdict, "accepted of");
    assert_names(&verdict, "are more than the 60 units there are");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_barrier_tokens_that_come_back_were_not_accepted() {
    let scene = TesterFixture::sound().await;
    let heard = steals_what_a_failover_brings_back(&scene).await;

    assert!(
        matches!(heard, RequestOutcome::Nothing(_)),
        "told {heard:?} over tokens that no replica has given away"
    );
    assert_clean(&scene.verdict().await);
}

/// Ann buys while nothing gets to the replica, which then takes over.
async fn buys_what_a_failover_forgets(scene: &TesterFixture) -> RequestOutcome {
    let (ann, pair) = (scene.somebody_at(0), scene.pair_of(0).await);
    scene.part(pair).await;
    let heard = scene.tries(&ann, "hers").await;
    scene.promote_over_dead(pair).await;
    if heard != RequestOutcome::Bought {
        scene.stack.redis().wait_until_whole().await.unwrap();
        scene.keeps_trying(&ann, "hers").await;
    }
    heard
}

/// Ann's shard is dry, so tokens are brought there while nothing gets to the givers' replicas; then the giver's
/// replica takes over, and sells all that it thinks it has. (Were tokens to leave it by the same channel again, its
/// counter would catch up with what was accepted, and the channel would swallow what came back.)
async fn steals_what_a_failover_brings_back(scene: &TesterFixture) -> RequestOutcome {
    scene.run_dry(0).await;
    let (ann, givers) = (scene.somebody_at(0), [scene.pair_of(1).await, scene.pair_of(2).await]);
    for giver in givers {
        scene.part(giver).await;
    }
    let heard = scene.tries(&ann, "hers").await;
    let giver = scene.donor().await;
    for (number, pair) in (1..).zip(givers) {
        if number == giver {
            scene.promote_over_dead(pair).await;
        } else {
            scene.stack.redis().thaw(pair.1);
        }
    }
    scene.stack.redis().wait_until_whole().await.unwrap();
    scene.run_dry(giver).await;
    if heard != RequestOutcome::Bought {
        scene.keeps_trying(&ann, "hers").await;
    }
    heard
}
