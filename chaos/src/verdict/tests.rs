//! Journals by hand: a sound one, and for each rule one that breaks that rule and no other.

mod operators;
mod times;

use super::*;
use crate::journal::ApiFamily;

/// A story of one user and one operator, told line by line.
#[derive(Default)]
struct JournalBuilder {
    records: Vec<JournalEntry>,
    end: FinalState,
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

    /// An attempt with this key, whose order is `order-<key>`.
    fn attempt(&mut self, key: &str) -> u64 {
        self.ask(BuyerRequest::Purchase { key: key.into(), order: format!("order-{key}") })
    }

    /// A try of the attempt of this name, without a key.
    fn without_key(mut self, attempt: &str, status: u16, reason: Option<&str>, order: Option<&str>) -> Self {
        let request = self.ask(BuyerRequest::PurchaseWithoutKey { attempt: attempt.into() });
        self.answer(request, Some(status), reason, order);
        self
    }

    fn buys(mut self, key: &str) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(200), None, Some(&format!("order-{key}")));
        self
    }

    fn buys_and_is_told(mut self, key: &str, order: &str) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(200), None, Some(order));
        self
    }

    fn hears_nothing(mut self, key: &str) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(503), None, None);
        self
    }

    fn hears_no(mut self, key: &str, reason: &str, order: Option<&str>) -> Self {
        let request = self.attempt(key);
        self.answer(request, Some(409), Some(reason), order);
        self
    }

    fn looks_and_sees(mut self, order: Option<&str>) -> Self {
        let request = self.ask(BuyerRequest::Lookup);
        self.answer(request, Some(200), None, order);
        self
    }

    fn claimed(self, order: &str) -> Self {
        let at = self.now;
        self.claimed_at(order, at)
    }

    fn claimed_at(mut self, order: &str, at: Micros) -> Self {
        self.end.total = self.end.total.max(1);
        self.end.claims.insert("ann".into(), Claim { order: order.into(), at_ms: at / 1_000 });
        self
    }

    fn broken_rules(&self) -> Vec<&'static str> {
        violations(&self.records, &self.end).iter().map(|violation| violation.rule).collect()
    }

    #[track_caller]
    fn breaks(&self, rule: &str) {
        assert_eq!(self.broken_rules(), [rule]);
    }
}

#[test]
fn a_sound_story_breaks_nothing() {
    let story = JournalBuilder::default().hears_nothing("a").buys("a").claimed("order-a");
    let story = story.hears_no("b", "already_purchased", Some("order-a")).looks_and_sees(Some("order-a"));
    assert_eq!(story.broken_rules(), Vec::<&str>::new());
}

#[test]
fn who_is_sold_out_and_has_nothing_breaks_nothing() {
    let story =
        JournalBuilder::default().hears_nothing("a").hears_no("a", "out_of_stock", None).looks_and_sees(None);
    assert_eq!(story.broken_rules(), Vec::<&str>::new());
}

#[test]
fn a_lost_answer_without_a_key_may_be_told_as_already_purchased() {
    let story = JournalBuilder::default().without_key("a", 503, None, None).claimed("random");
    let story = story.without_key("a", 409, Some("already_purchased"), Some("random"));
    assert_eq!(story.broken_rules(), Vec::<&str>::new());
}

#[test]
fn a_buyer_without_a_key_hears_of_two_orders() {
    let story = JournalBuilder::default()
        .without_key("a", 409, Some("already_purchased"), Some("one"))
        .claimed("other");
    let story = story.without_key("a", 409, Some("already_purchased"), Some("other"));
    story.breaks("what was told to be bought is a claim, by that very order");
}

#[test]
fn a_buyer_without_a_key_buys_twice() {
    let story = JournalBuilder::default().without_key("a", 200, None, Some("one")).claimed_at("one", SECOND);
    story.without_key("b", 200, None, Some("one")).breaks("nobody buys twice");
}

#[test]
fn a_buyer_without_a_key_is_told_sold_out_after_a_purchase() {
    let story = JournalBuilder::default().without_key("a", 200, None, Some("one"));
    let story = story.without_key("b", 409, Some("out_of_stock"), None).claimed("one");
    story.breaks("a purchase once told stays true");
}

#[test]
fn a_buyer_without_a_key_is_left_without_an_answer() {
    JournalBuilder::default()
        .without_key("a", 503, None, None)
        .breaks("every attempt has a definite answer in the end");
}

#[test]
fn the_second_family_of_calls_is_understood() {
    let story = JournalBuilder::default().without_key("a", 403, Some("csrf"), None);
    let story = story.without_key("a", 403, Some("not_active"), None);
    let story = story.without_key("b", 410, Some("sold_out"), None);
    assert_eq!(story.broken_rules(), Vec::<&str>::new());
    let story = JournalBuilder::default().buys("a").claimed_at("order-a", SECOND);
    let story = story.without_key("b", 410, Some("sold_out"), None);
    assert!(story.broken_rules().contains(&"a purchase once told stays true"));
}

#[test]
fn a_purchase_that_redis_does_not_know() {
    JournalBuilder::default().buys("a").breaks("what was told to be bought is a claim, by that very order");
}

#[test]
fn a_purchase_that_redis_knows_by_another_order() {
    let story = JournalBuilder::default().looks_and_sees(Some("order-b")).claimed("order-a");
    story.breaks("what was told to be bought is a claim, by that very order");
}

#[test]
fn two_purchases_of_one_user() {
    // The second one is told the first one's order: only the number of purchases gives it away, and that it is strange.
    let story =
        JournalBuilder::default().buys("a").buys_and_is_told("b", "order-a").claimed_at("order-a", SECOND);
    let broken = story.broken_rules();
    assert!(broken.contains(&"nobody buys twice"), "{broken:?}");
}

#[test]
fn a_purchase_told_with_another_attempt_s_order() {
    let story = JournalBuilder::default().buys_and_is_told("a", "order-b").claimed("order-b");
    story.breaks("a purchase is told with the order of its own attempt");
}

#[test]
fn sold_out_to_somebody_whose_claim_nobody_had_told_yet() {
    let story = JournalBuilder::default().hears_nothing("a").claimed("order-a");
    let story = story.hears_no("b", "out_of_stock", None).buys("a");
    story.breaks("nobody who has a unit is told that they cannot have one");
}

#[test]
fn a_purchase_that_is_forgotten_and_made_again() {
    // The claim is younger than the refusal, so only the earlier answer shows it.
    let story = JournalBuilder::default().buys("a").looks_and_sees(None).claimed("order-a");
    story.breaks("a purchase once told stays true");
}

#[test]
fn an_attempt_refused_for_its_own_order() {
    let story = JournalBuilder::default().hears_nothing("a").claimed("order-a");
    story
        .hears_no("a", "already_purchased", Some("order-a"))
        .breaks("an attempt is not refused for its own order");
}

#[test]
fn a_refusal_that_sold_all_the_same() {
    let story = JournalBuilder::default().hears_no("a", "out_of_stock", None).claimed("order-a");
    story.breaks("who was refused has no unit by that attempt");
}

#[test]
fn an_attempt_without_an_end() {
    let rule = "every attempt has a definite answer in the end";
    JournalBuilder::default().hears_nothing("a").breaks(rule);
    let mut unanswered = JournalBuilder::default();
    unanswered.attempt("a");
    unanswered.breaks(rule);
}

#[test]
fn a_claim_from_nowhere() {
    JournalBuilder::default().claimed("order-a").breaks("every claim is somebody's who asked");
}

#[test]
fn a_violation_shows_the_lines_of_its_user() {
    let story = JournalBuilder::default().buys("a");
    let found = violations(&story.records, &story.end);
    assert_eq!(
        found[0].lines,
        ["request 0 at 1000000 via nginx: purchase by attempt a (order order-a) -> at 2000000 200  order-a"]
    );
}
