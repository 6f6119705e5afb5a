//! The barriers: no answer and no transfer may rest on a write that no replica has.

use buyers::AnswerKind;

use crate::fixture::{TesterFixture, assert_clean, assert_reports};

#[tokio::test(flavor = "multi_thread")]
async fn purchase_is_lost_without_barrier_b1() {
    let fixture = TesterFixture::with_sabotage("no-b1").await;
    let outcome = buy_before_failover(&fixture).await;

    assert_eq!(outcome, AnswerKind::Purchased, "the barrier is still active");
    let audit_findings = fixture.audit_findings().await;
    assert_reports(&audit_findings, "a reported purchase has a claim with the same order");
}

#[tokio::test(flavor = "multi_thread")]
async fn purchase_is_not_confirmed_without_replica() {
    let fixture = TesterFixture::intact().await;
    let outcome = buy_before_failover(&fixture).await;

    assert!(!outcome.is_definite(), "{outcome:?} was answered for a purchase that no replica has");
    assert_clean(&fixture.audit_findings().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_duplicated_without_barrier_b2() {
    let fixture = TesterFixture::with_sabotage("no-b2").await;
    let outcome = steal_before_failover(&fixture).await;

    assert_eq!(outcome, AnswerKind::Purchased, "the barrier is still active");
    let audit_findings = fixture.audit_findings().await;
    assert_reports(&audit_findings, "accepted of");
    assert_reports(&audit_findings, "are more than the 60 units there are");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_not_accepted_without_replica() {
    let fixture = TesterFixture::intact().await;
    let outcome = steal_before_failover(&fixture).await;

    assert!(!outcome.is_definite(), "{outcome:?} was answered for tokens whose donation no replica has");
    assert_clean(&fixture.audit_findings().await);
}

/// Lets a buyer buy while the replica gets no writes. The replica then takes over.
async fn buy_before_failover(fixture: &TesterFixture) -> AnswerKind {
    let (buyer, pair) = (fixture.buyer_at(0), fixture.pair_of(0).await);
    fixture.stop_replication(pair).await;
    let outcome = fixture.try_once(&buyer, "first").await;
    fixture.fail_over(pair).await;
    if outcome != AnswerKind::Purchased {
        fixture.stack.redis().wait_until_whole().await.unwrap();
        fixture.retry_until_definite(&buyer, "first").await;
    }
    outcome
}

/// Lets a buyer of an empty shard cause a steal while the donors' replicas get no writes. The donor's replica then
/// takes over and sells all tokens it knows of. (If it donated through the same channel again, its counter would catch
/// up with the accepted tokens, and the channel would absorb the duplicates.)
async fn steal_before_failover(fixture: &TesterFixture) -> AnswerKind {
    fixture.sell_out_shard(0).await;
    let (buyer, donors) = (fixture.buyer_at(0), [fixture.pair_of(1).await, fixture.pair_of(2).await]);
    for donor in donors {
        fixture.stop_replication(donor).await;
    }
    let outcome = fixture.try_once(&buyer, "first").await;
    let donor = fixture.donor_of(0).await;
    for (number, pair) in (1..).zip(donors) {
        if number == donor {
            fixture.fail_over(pair).await;
        } else {
            fixture.stack.redis().thaw(pair.1);
        }
    }
    fixture.stack.redis().wait_until_whole().await.unwrap();
    fixture.sell_out_shard(donor).await;
    if outcome != AnswerKind::Purchased {
        fixture.retry_until_definite(&buyer, "first").await;
    }
    outcome
}
