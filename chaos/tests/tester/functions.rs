//! The Lua functions: one changed line oversells, or sells twice to one user.

use buyers::AnswerKind;

use crate::fixture::{TesterFixture, UNITS, assert_clean, assert_reports};

#[tokio::test(flavor = "multi_thread")]
async fn intact_functions_are_clean() {
    let fixture = TesterFixture::intact().await;
    assert_eq!(
        buy_twice(&fixture).await,
        [AnswerKind::Purchased, AnswerKind::AlreadyPurchased],
        "the second attempt gets the first one's order"
    );
    fixture.buy_at(0, UNITS as usize).await;
    assert_clean(&fixture.audit_findings().await);
}

/// A channel's counter is cumulative. Adding it up each time, instead of its increase, creates tokens.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_appear_without_maximum_in_accept() {
    let line = "stock = stock + cumulative - before";
    let fixture = TesterFixture::with_function_line(line, "stock = stock + cumulative").await;

    fixture.buy_at(0, UNITS as usize).await;

    let audit_findings = fixture.audit_findings().await;
    assert_reports(&audit_findings, "but holds");
    assert_reports(&audit_findings, "are more than the 60 units there are");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_order_is_reported_without_order_check() {
    let fixture = TesterFixture::with_function_line("answers[buyer] = claim\n", "answers[buyer] = 1\n").await;

    assert_eq!(buy_twice(&fixture).await, [AnswerKind::Purchased, AnswerKind::Purchased]);

    let audit_findings = fixture.audit_findings().await;
    assert_reports(&audit_findings, "a reported purchase has a claim with the same order");
    assert_reports(&audit_findings, "a user buys at most once");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_buys_twice_without_claim_check() {
    let line = "local claim = held[buyer] or taken[user]";
    let fixture = TesterFixture::with_function_line(line, "local claim = taken[user]").await;

    assert_eq!(buy_twice(&fixture).await, [AnswerKind::Purchased, AnswerKind::Purchased]);

    let audit_findings = fixture.audit_findings().await;
    assert_reports(&audit_findings, "has two orders");
    assert_reports(&audit_findings, "a user buys at most once");
}

/// Lets one user buy with two attempts.
async fn buy_twice(fixture: &TesterFixture) -> [AnswerKind; 2] {
    let buyer = fixture.buyer_at(0);
    [fixture.try_once(&buyer, "first").await, fixture.try_once(&buyer, "second").await]
}
