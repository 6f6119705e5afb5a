//! The functions: a line that is another one sells what is not there, or to somebody who has one.

use chaos::RequestOutcome;

use crate::fixture::{TesterFixture, UNITS, assert_clean, assert_names};

#[tokio::test(flavor = "multi_thread")]
async fn with_every_line_in_its_place_both_stories_are_clean() {
    let scene = TesterFixture::sound().await;
    assert_eq!(
        buys_twice(&scene).await,
        [RequestOutcome::Bought, RequestOutcome::Bought],
        "the second one with the first one's order"
    );
    scene.neighbours_buy(0, UNITS as usize).await;
    assert_clean(&scene.verdict().await);
}

/// A channel's counter only grows: who adds it up each time, instead of taking what is new, makes tokens.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_maximum_in_accept_tokens_come_from_nowhere() {
    let line = "stock = stock + cumulative - before";
    let scene = TesterFixture::with_function_line(line, "stock = stock + cumulative").await;

    scene.neighbours_buy(0, UNITS as usize).await;

    let verdict = scene.verdict().await;
    assert_names(&verdict, "but holds");
    assert_names(&verdict, "are more than the 60 units there are");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_order_id_check_a_second_attempt_is_taken_for_the_first() {
    let scene = TesterFixture::with_function_line("answers[buyer] = claim\n", "answers[buyer] = 1\n").await;

    assert_eq!(buys_twice(&scene).await, [RequestOutcome::Bought, RequestOutcome::Bought]);

    let verdict = scene.verdict().await;
    assert_names(&verdict, "what was told to be bought is a claim, by that very order");
    assert_names(&verdict, "nobody buys twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_look_for_a_claim_one_user_buys_twice() {
    let line = "local claim = held[buyer] or taken[user]";
    let scene = TesterFixture::with_function_line(line, "local claim = taken[user]").await;

    assert_eq!(buys_twice(&scene).await, [RequestOutcome::Bought, RequestOutcome::Bought]);

    let verdict = scene.verdict().await;
    assert_names(&verdict, "has two orders");
    assert_names(&verdict, "nobody buys twice");
}

/// Ann buys, and again with another attempt.
async fn buys_twice(scene: &TesterFixture) -> [RequestOutcome; 2] {
    let ann = scene.somebody_at(0);
    [scene.tries(&ann, "first").await, scene.tries(&ann, "second").await]
}
