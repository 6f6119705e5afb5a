//! Tests with constructed journals: a correct one, and for each rule one that violates only that rule.

mod operators;
mod times;

use super::*;
use crate::journal::{Answered, ApiFamily, BuyerRequest, Invoked};

/// Builds the journal of one user and one operator, entry by entry.
#[derive(Default)]
struct JournalBuilder {
    records: Vec<JournalEntry>,
    final_state: FinalState,
    operations: u64,
    now: Micros,
}

const SECOND: Micros = 1_000_000;

impl JournalBuilder {
    fn ask(&mut self, ask: BuyerRequest) -> u64 {
        let request = self.records.len() as u64;
        self.now += SECOND;
        let (user, via, sale) = ("ann".to_owned(), "nginx".to_owned(), "flash".to_owned());
        let (at, api) = (self.now, ApiFamily::BySale);
        let invoked = Invoked { request, at, sale, api, user, shard: 0, via, ask };
        self.records.push(JournalEntry::Invoked(invoked));
        request
    }

    fn answer(&mut self, request: u64, kind: AnswerKind, order: Option<&str>) {
        self.now += SECOND;
        let (at, order) = (self.now, order.map(String::from));
        self.records.push(JournalEntry::Answered(Answered {
            request,
            at,
            kind,
            order,
            ..Answered::default()
        }));
    }

    fn asks(mut self, ask: BuyerRequest, kind: AnswerKind, order: Option<&str>) -> Self {
        let request = self.ask(ask);
        self.answer(request, kind, order);
        self
    }

    /// Starts an attempt with this key, whose order is `order-<key>`.
    fn attempt(&mut self, key: &str) -> u64 {
        self.ask(with_key(key))
    }

    /// Adds a try of the attempt with this name, without a key.
    fn tries_without_key(self, attempt: &str, kind: AnswerKind, order: Option<&str>) -> Self {
        self.asks(BuyerRequest::Purchase { attempt: attempt.into(), order: None }, kind, order)
    }

    fn buys(self, key: &str) -> Self {
        self.buys_with_order(key, &format!("order-{key}"))
    }

    fn buys_with_order(self, key: &str, order: &str) -> Self {
        self.asks(with_key(key), AnswerKind::Purchased, Some(order))
    }

    fn gets_unknown_outcome(self, key: &str) -> Self {
        self.gets_refusal(key, AnswerKind::Unknown, None)
    }

    fn gets_refusal(self, key: &str, kind: AnswerKind, order: Option<&str>) -> Self {
        self.asks(with_key(key), kind, order)
    }

    fn lookup_finds(self, order: Option<&str>) -> Self {
        let kind = if order.is_some() { AnswerKind::Found } else { AnswerKind::FoundNone };
        self.asks(BuyerRequest::Lookup, kind, order)
    }

    fn claimed(self, order: &str) -> Self {
        let at = self.now;
        self.claimed_at(order, at)
    }

    fn claimed_at(mut self, order: &str, at: Micros) -> Self {
        self.final_state.total = self.final_state.total.max(1);
        self.final_state.claims.insert("ann".into(), Claim { order: order.into(), at_ms: at / 1_000 });
        self
    }

    fn violated_rules(&self) -> Vec<&'static str> {
        violations(&self.records, &self.final_state).iter().map(|violation| violation.rule).collect()
    }

    #[track_caller]
    fn violates(&self, rule: &str) {
        assert_eq!(self.violated_rules(), [rule]);
    }
}

fn with_key(key: &str) -> BuyerRequest {
    BuyerRequest::Purchase { attempt: key.into(), order: Some(format!("order-{key}")) }
}

#[test]
fn correct_journal_has_no_violations() {
    let journal = JournalBuilder::default().gets_unknown_outcome("a").buys("a").claimed("order-a");
    let journal = journal
        .gets_refusal("b", AnswerKind::AlreadyPurchased, Some("order-a"))
        .lookup_finds(Some("order-a"));
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn sold_out_user_without_claim_is_no_violation() {
    let journal = JournalBuilder::default()
        .gets_unknown_outcome("a")
        .gets_refusal("a", AnswerKind::SoldOut, None)
        .lookup_finds(None);
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn keyless_retry_may_get_already_purchased() {
    let journal =
        JournalBuilder::default().tries_without_key("a", AnswerKind::Unknown, None).claimed("random");
    let journal = journal.tries_without_key("a", AnswerKind::AlreadyPurchased, Some("random"));
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn keyless_buyer_with_two_orders_is_found() {
    let journal = JournalBuilder::default()
        .tries_without_key("a", AnswerKind::AlreadyPurchased, Some("one"))
        .claimed("other");
    let journal = journal.tries_without_key("a", AnswerKind::AlreadyPurchased, Some("other"));
    journal.violates("a reported purchase has a claim with the same order");
}

#[test]
fn keyless_buyer_with_two_purchases_is_found() {
    let journal = JournalBuilder::default()
        .tries_without_key("a", AnswerKind::Purchased, Some("one"))
        .claimed_at("one", SECOND);
    journal.tries_without_key("b", AnswerKind::Purchased, Some("one")).violates("a user buys at most once");
}

#[test]
fn keyless_sold_out_after_purchase_is_found() {
    let journal = JournalBuilder::default().tries_without_key("a", AnswerKind::Purchased, Some("one"));
    let journal = journal.tries_without_key("b", AnswerKind::SoldOut, None).claimed("one");
    journal.violates("a reported purchase is not denied later");
}

#[test]
fn keyless_attempt_without_answer_is_found() {
    JournalBuilder::default()
        .tries_without_key("a", AnswerKind::Unknown, None)
        .violates("every attempt has a definite answer in the end");
}

#[test]
fn keyless_refusals_are_no_violation() {
    let journal = JournalBuilder::default().tries_without_key("a", AnswerKind::CsrfRefused, None);
    let journal = journal.tries_without_key("a", AnswerKind::NotActive, None);
    let journal = journal.tries_without_key("b", AnswerKind::SoldOut, None);
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn purchase_without_claim_is_found() {
    JournalBuilder::default().buys("a").violates("a reported purchase has a claim with the same order");
}

#[test]
fn claim_with_another_order_is_found() {
    let journal = JournalBuilder::default().lookup_finds(Some("order-b")).claimed("order-a");
    journal.violates("a reported purchase has a claim with the same order");
}

#[test]
fn two_purchases_of_one_user_are_found() {
    // The second purchase has the first one's order, so the number of purchases and the wrong order are the only
    // evidence.
    let journal =
        JournalBuilder::default().buys("a").buys_with_order("b", "order-a").claimed_at("order-a", SECOND);
    let violated = journal.violated_rules();
    assert!(violated.contains(&"a user buys at most once"), "{violated:?}");
}

#[test]
fn purchase_with_another_attempts_order_is_found() {
    let journal = JournalBuilder::default().buys_with_order("a", "order-b").claimed("order-b");
    journal.violates("a purchase is reported with its attempt's own order");
}

#[test]
fn refusal_with_unreported_claim_is_found() {
    let journal = JournalBuilder::default().gets_unknown_outcome("a").claimed("order-a");
    let journal = journal.gets_refusal("b", AnswerKind::SoldOut, None).buys("a");
    journal.violates("a user with a unit is not refused");
}

#[test]
fn lost_and_repeated_purchase_is_found() {
    // The claim is newer than the refusal, so only the earlier answer shows the violation.
    let journal = JournalBuilder::default().buys("a").lookup_finds(None).claimed("order-a");
    journal.violates("a reported purchase is not denied later");
}

#[test]
fn attempt_refused_for_own_order_is_found() {
    let journal = JournalBuilder::default().gets_unknown_outcome("a").claimed("order-a");
    journal
        .gets_refusal("a", AnswerKind::AlreadyPurchased, Some("order-a"))
        .violates("an attempt is not refused for its own order");
}

#[test]
fn claim_of_refused_attempt_is_found() {
    let journal = JournalBuilder::default().gets_refusal("a", AnswerKind::SoldOut, None).claimed("order-a");
    journal.violates("a refused attempt has no claim");
}

#[test]
fn attempt_without_definite_answer_is_found() {
    let rule = "every attempt has a definite answer in the end";
    JournalBuilder::default().gets_unknown_outcome("a").violates(rule);
    let mut unanswered = JournalBuilder::default();
    unanswered.attempt("a");
    unanswered.violates(rule);
}

#[test]
fn claim_without_request_is_found() {
    JournalBuilder::default().claimed("order-a").violates("every claim belongs to a user who sent a request");
}

#[test]
fn violation_shows_the_lines_of_its_user() {
    let journal = JournalBuilder::default().buys("a");
    let found = violations(&journal.records, &journal.final_state);
    assert_eq!(found[0].what, "ann, request 0: purchased with order order-a, but Redis holds no claim");
    let [request, answer] = &found[0].lines[..] else { panic!("{:?}", found[0].lines) };
    assert!(request.contains(r#""attempt":"a","order":"order-a""#), "{request}");
    assert!(answer.contains(r#""kind":"purchased","order":"order-a""#), "{answer}");
}
