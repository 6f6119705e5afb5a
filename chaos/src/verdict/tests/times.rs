//! Stories of windows, pauses and restocks: what buyers were told, and when.

use stock::sale::SaleState;

use super::{operators::ENDS_AT, *};
use crate::journal::Change;

const ACTIVE: &str = "within its window and without a pause a sale is active";
const EMPTY: &str = "sold out is only said when every unit is sold";

impl JournalBuilder {
    fn hears_not_active(self, key: &str) -> Self {
        self.hears_no(key, "sale_not_active", None)
    }

    fn at(mut self, seconds: u64) -> Self {
        self.now = seconds * SECOND;
        self
    }
}

#[test]
fn a_refusal_without_a_pause() {
    JournalBuilder::opened(1, 0).at(5).hears_not_active("a").breaks(ACTIVE);
    let resumed =
        JournalBuilder::opened(1, 0).operates(Change::Pause, Some(200)).operates(Change::Resume, Some(200));
    resumed.hears_not_active("a").breaks(ACTIVE);
}

#[test]
fn a_refusal_in_a_pause_or_at_its_edges() {
    let paused = JournalBuilder::opened(1, 0).operates(Change::Pause, Some(200)).hears_not_active("a");
    paused.operates(Change::Resume, Some(200)).is_sound();
    let mut early = JournalBuilder::opened(1, 0);
    let request = early.attempt("a");
    let mut early = early.operates(Change::Pause, Some(503));
    early.answer(request, Some(403), Some("sale_not_active"), None);
    early.tries(Change::Pause, Some(200), None).operates(Change::Resume, Some(200)).is_sound();
}

#[test]
fn a_refusal_before_the_start_and_after_the_end() {
    JournalBuilder::opened(1, 100).hears_not_active("a").is_sound();
    JournalBuilder::opened(1, 100).at(99).hears_not_active("a").is_sound();
    JournalBuilder::opened(1, 100).at(101).hears_not_active("a").breaks(ACTIVE);
    JournalBuilder::opened(1, 100).at(ENDS_AT / 1_000).hears_not_active("a").is_sound();
    JournalBuilder::opened(1, 100).at(ENDS_AT / 1_000 - 10).hears_not_active("a").breaks(ACTIVE);
}

#[test]
fn a_refusal_after_the_end_was_moved() {
    let extended = |status| {
        let story =
            JournalBuilder::opened(1, 0).operates(Change::Extend { ends_at: 2 * ENDS_AT }, Some(status));
        story.at(ENDS_AT / 1_000 + 1).hears_not_active("a")
    };
    extended(200).holds(SaleState::Open, 2 * ENDS_AT).breaks(ACTIVE);
    extended(503)
        .operates(Change::Extend { ends_at: 2 * ENDS_AT }, Some(200))
        .holds(SaleState::Open, 2 * ENDS_AT)
        .is_sound();
}

#[test]
fn a_claim_outside_the_window() {
    let rule = "no unit is sold outside the window";
    let story = || JournalBuilder::opened(1, 100).at(200).buys("a");
    story().claimed_at("order-a", 150 * SECOND).is_sound();
    story().claimed_at("order-a", 99 * SECOND).breaks(rule);
    story().claimed_at("order-a", ENDS_AT * 1_000).breaks(rule);
    let story = story().operates(Change::Extend { ends_at: 2 * ENDS_AT }, Some(200));
    story.holds(SaleState::Open, 2 * ENDS_AT).claimed_at("order-a", ENDS_AT * 1_000).is_sound();
}

#[test]
fn a_claim_by_a_clock_that_is_wrong() {
    let story = |clock_error_ms| {
        let mut story =
            JournalBuilder::opened(2, 0).at(500).operates(Change::Pause, Some(200)).hears_not_active("a");
        if let Some(JournalEntry::SaleOpened(opened)) = story.records.first_mut() {
            opened.clock_error_ms = clock_error_ms;
        }
        let story = story.operates(Change::Resume, Some(200)).buys("b");
        story.claimed_at("order-b", 490 * SECOND).with_total(2)
    };
    story(0).breaks("nobody who has a unit is told that they cannot have one");
    story(20_000).is_sound();
}

#[test]
fn a_purchase_during_a_pause() {
    let paused = || JournalBuilder::opened(1, 0).operates(Change::Pause, Some(200));
    let bought = paused().buys("a").claimed("order-a").operates(Change::Resume, Some(200));
    bought.breaks("no unit is sold during a pause");
    let earlier =
        JournalBuilder::opened(1, 0).hears_nothing("a").operates(Change::Pause, Some(200)).buys("a");
    earlier.claimed_at("order-a", SECOND).operates(Change::Resume, Some(200)).is_sound();
}

#[test]
fn a_buyer_who_has_a_unit_and_is_told_that_the_sale_is_not_active() {
    let story = |seconds| {
        let story = JournalBuilder::opened(1, 0).buys("a").claimed("order-a");
        story.at(ENDS_AT / 1_000 + seconds).hears_not_active("b")
    };
    let broken = story(10).broken_rules();
    assert!(broken.contains(&"a purchase once told stays true"), "{broken:?}");
    // Nodes no longer look for claims then.
    story(100).is_sound();
}

#[test]
fn sold_out_before_every_unit_is_sold() {
    JournalBuilder::opened(1, 0).hears_no("a", "out_of_stock", None).breaks(EMPTY);
    JournalBuilder::opened(1, 0).somebody_else_buys().hears_no("a", "out_of_stock", None).is_sound();
}

#[test]
fn sold_out_after_a_restock() {
    let restocked = || JournalBuilder::opened(1, 0).somebody_else_buys();
    let change = Change::Restock { units: 5 };
    let told = restocked().hears_no("a", "out_of_stock", None).operates(change, Some(200));
    told.with_total(6).is_sound();
    let told = restocked().operates(change, Some(200)).hears_no("a", "out_of_stock", None);
    told.with_total(6).breaks(EMPTY);
    let told = restocked().operates(change, Some(503)).hears_no("a", "out_of_stock", None);
    told.tries(change, Some(200), None).with_total(6).is_sound();
}

#[test]
fn a_sale_that_is_not_found() {
    let rule = "a sale that was created is found";
    let mut story = JournalBuilder::opened(1, 0);
    let request = story.attempt("a");
    story.answer(request, Some(404), None, None);
    story.breaks(rule);

    let create = Change::Create { total_stock: 1, shards: 2, starts_at: 0, ends_at: ENDS_AT };
    let mut early = JournalBuilder::default().with_total(1);
    let request = early.attempt("a");
    let mut early = early.operates(create, Some(201)).holds(SaleState::Open, ENDS_AT);
    early.answer(request, Some(404), None, None);
    early.is_sound();
}

impl JournalBuilder {
    fn somebody_else_buys(mut self) -> Self {
        let request = self.attempt("bob");
        let order = "order-bob";
        self.answer(request, Some(200), None, Some(order));
        for record in &mut self.records {
            if let JournalEntry::Invoked(invoked) = record
                && invoked.request == request
            {
                invoked.user = "bob".into();
            }
        }
        self.end.claims.insert("bob".into(), Claim { order: order.into(), at_ms: self.now / 1_000 });
        self
    }
}
