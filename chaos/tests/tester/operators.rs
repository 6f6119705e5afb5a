//! Operators' changes: the audit finds a change that shards do not apply, by buyers' answers and by the final state.

use buyers::AnswerKind;
use buyers::journal::Change;

use crate::fixture::{TesterFixture, assert_clean, assert_reports};

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_are_clean() {
    let fixture = TesterFixture::intact().await;
    let buyer = fixture.buyer_at(0);

    fixture.change_sale(Change::Pause).await;
    assert_eq!(fixture.try_once(&buyer, "early").await, AnswerKind::NotActive);
    fixture.change_sale(Change::Resume).await;
    assert_eq!(fixture.try_once(&buyer, "late").await, AnswerKind::Purchased);

    assert_clean(&fixture.audit_findings().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn purchase_during_ignored_pause_is_found() {
    let fixture =
        TesterFixture::with_function_line("local open = shard[2] == 'open' and at", "local open = at").await;
    let buyer = fixture.buyer_at(0);

    fixture.change_sale(Change::Pause).await;
    assert_eq!(fixture.try_once(&buyer, "early").await, AnswerKind::Purchased);
    fixture.change_sale(Change::Resume).await;

    assert_reports(&fixture.audit_findings().await, "no unit is sold during a pause");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_that_shards_ignore_is_found() {
    let fixture = TesterFixture::with_function_line("'state', args[3], 'starts_at'", "'starts_at'").await;

    fixture.change_sale(Change::Pause).await;

    assert_reports(&fixture.audit_findings().await, "a confirmed change stays in force");
}
