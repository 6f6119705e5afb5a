//! Tests with constructed journals: a correct one, and for each rule one that violates only that rule.

mod operators;
mod times;

use super::*;
use crate::journal::ApiFamily;

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
        self.records.push(JournalEntry::Invoked(Invoked {
            request,
            at,
            sale,
            api,
            user,
            shard: 0,
            via,
            ask,
        }));
        request
    }

    fn answer(&mut self, request: u64, status: Option<u16>, reason: Option<&str>, order: Option<&str>) {
        self.now += SECOND;
        self.records.push(JournalEntry::Answered(Answered {
            request,
            at: self.now,
            status,
            reason: reason.map(String::from),
            order: order.map(String::from),
        }));
    }

    /// Starts an attempt with this key, whose order is `order-<key>`.
    fn attempt(&mut self, key: &str) -> u64 {
        self.ask(BuyerRequest::Purchase { key: key.into(), order: format!("order-{key}") })
    }

    /// Adds a try of the attempt with this name, without a key.
    fn tries_without_key(
        mut self,
        attempt: &str,
        status: u16,
        reason: Option<&str>,
        order: Option<&str>,
    ) -> Self {
        let request = self.ask(BuyerRequest::PurchaseWithoutKey { attempt: attempt.into() });
        self.answer(request, Some(status), reason, order);
        self
    }

    fn buys(mut self, key: &str) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(200), None, Some(&format!("order-{key}")));
        self
    }

    fn buys_with_order(mut self, key: &str, order: &str) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(200), None, Some(order));
        self
    }

    fn gets_unknown_outcome(mut self, key: &str) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(503), None, None);
        self
    }

    fn gets_refusal(mut self, key: &str, reason: &str, order: Option<&str>) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(409), Some(reason), order);
        self
    }

    fn lookup_finds(mut self, order: Option<&str>) -> Self {
        let request = self.ask(BuyerRequest::Lookup);
        self.answer(request, Some(200), None, order);
        self
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

#[test]
fn correct_journal_has_no_violations() {
    let journal = JournalBuilder::default().gets_unknown_outcome("a").buys("a").claimed("order-a");
    let journal =
        journal.gets_refusal("b", "already_purchased", Some("order-a")).lookup_finds(Some("order-a"));
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn sold_out_user_without_claim_is_no_violation() {
    let journal = JournalBuilder::default()
        .gets_unknown_outcome("a")
        .gets_refusal("a", "out_of_stock", None)
        .lookup_finds(None);
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn keyless_retry_may_get_already_purchased() {
    let journal = JournalBuilder::default().tries_without_key("a", 503, None, None).claimed("random");
    let journal = journal.tries_without_key("a", 409, Some("already_purchased"), Some("random"));
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
}

#[test]
fn keyless_buyer_with_two_orders_is_found() {
    let journal = JournalBuilder::default()
        .tries_without_key("a", 409, Some("already_purchased"), Some("one"))
        .claimed("other");
    let journal = journal.tries_without_key("a", 409, Some("already_purchased"), Some("other"));
    journal.violates("a reported purchase has a claim with the same order");
}

#[test]
fn keyless_buyer_with_two_purchases_is_found() {
    let journal =
        JournalBuilder::default().tries_without_key("a", 200, None, Some("one")).claimed_at("one", SECOND);
    journal.tries_without_key("b", 200, None, Some("one")).violates("a user buys at most once");
}

#[test]
fn keyless_sold_out_after_purchase_is_found() {
    let journal = JournalBuilder::default().tries_without_key("a", 200, None, Some("one"));
    let journal = journal.tries_without_key("b", 409, Some("out_of_stock"), None).claimed("one");
    journal.violates("a reported purchase is not denied later");
}

#[test]
fn keyless_attempt_without_answer_is_found() {
    JournalBuilder::default()
        .tries_without_key("a", 503, None, None)
        .violates("every attempt has a definite answer in the end");
}

#[test]
fn second_family_of_calls_is_understood() {
    let journal = JournalBuilder::default().tries_without_key("a", 403, Some("csrf"), None);
    let journal = journal.tries_without_key("a", 403, Some("not_active"), None);
    let journal = journal.tries_without_key("b", 410, Some("sold_out"), None);
    assert_eq!(journal.violated_rules(), Vec::<&str>::new());
    let journal = JournalBuilder::default().buys("a").claimed_at("order-a", SECOND);
    let journal = journal.tries_without_key("b", 410, Some("sold_out"), None);
    assert!(journal.violated_rules().contains(&"a reported purchase is not denied later"));
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
    let journal = journal.gets_refusal("b", "out_of_stock", None).buys("a");
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
        .gets_refusal("a", "already_purchased", Some("order-a"))
        .violates("an attempt is not refused for its own order");
}

#[test]
fn claim_of_refused_attempt_is_found() {
    let journal = JournalBuilder::default().gets_refusal("a", "out_of_stock", None).claimed("order-a");
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
    assert_eq!(
        found[0].lines,
        ["request 0 at 1000000 via nginx: purchase by attempt a (order order-a) -> at 2000000 200  order-a"]
    );
}
