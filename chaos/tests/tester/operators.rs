//! Operators: a change that shards do not follow is seen by what buyers are told, and by what shards hold in the end.

use chaos::RequestOutcome;
use chaos::journal::Change;

use crate::fixture::{TesterFixture, assert_clean, assert_names};

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_are_clean_when_shards_follow() {
    let scene = TesterFixture::sound().await;
    let ann = scene.somebody_at(0);

    scene.changes(Change::Pause).await;
    assert_eq!(scene.tries(&ann, "early").await, RequestOutcome::NotActive);
    scene.changes(Change::Resume).await;
    assert_eq!(scene.tries(&ann, "late").await, RequestOutcome::Bought);

    assert_clean(&scene.verdict().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_seen_when_buy_ignores_the_pause() {
    let scene =
        TesterFixture::with_function_line("local open = shard[2] == 'open' and at", "local open = at").await;
    let ann = scene.somebody_at(0);

    scene.changes(Change::Pause).await;
    assert_eq!(scene.tries(&ann, "early").await, RequestOutcome::Bought);
    scene.changes(Change::Resume).await;

    assert_names(&scene.verdict().await, "no unit is sold during a pause");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_change_is_seen_when_shards_keep_their_state() {
    let scene = TesterFixture::with_function_line("'state', args[3], 'starts_at'", "'starts_at'").await;

    scene.changes(Change::Pause).await;

    assert_names(&scene.verdict().await, "a change that an operator was told to be done stays done");
}
