//! Journals with windows, pauses and restocks.

use stock::sale::SaleState;

use super::{operators::ENDS_AT, *};
use crate::journal::Change;

const ACTIVE: &str = "an open sale is not reported as not active";
const SOLD_OUT: &str = "sold out is reported only when every unit is sold";

impl JournalBuilder {
    fn gets_not_active(self, key: &str) -> Self {
        self.gets_refusal(key, AnswerKind::NotActive, None)
    }

    fn at(mut self, seconds: u64) -> Self {
        self.now = seconds * SECOND;
        self
    }
}

#[test]
fn not_active_without_pause_is_found() {
    JournalBuilder::opened(1, 0).at(5).gets_not_active("a").violates(ACTIVE);
    let resumed = JournalBuilder::opened(1, 0)
        .tries_new_change(Change::Pause, AnswerKind::Data)
        .tries_new_change(Change::Resume, AnswerKind::Data);
    resumed.gets_not_active("a").violates(ACTIVE);
}

#[test]
fn not_active_during_or_near_pause_is_allowed() {
    let paused =
        JournalBuilder::opened(1, 0).tries_new_change(Change::Pause, AnswerKind::Data).gets_not_active("a");
    paused.tries_new_change(Change::Resume, AnswerKind::Data).is_correct();
    let mut early = JournalBuilder::opened(1, 0);
    let request = early.attempt("a");
    let mut early = early.tries_new_change(Change::Pause, AnswerKind::Unknown);
    early.answer(request, AnswerKind::NotActive, None);
    early
        .retries_change(Change::Pause, AnswerKind::Data)
        .tries_new_change(Change::Resume, AnswerKind::Data)
        .is_correct();
}

#[test]
fn not_active_outside_the_window_is_allowed() {
    JournalBuilder::opened(1, 100).gets_not_active("a").is_correct();
    JournalBuilder::opened(1, 100).at(99).gets_not_active("a").is_correct();
    JournalBuilder::opened(1, 100).at(101).gets_not_active("a").violates(ACTIVE);
    JournalBuilder::opened(1, 100).at(ENDS_AT / 1_000).gets_not_active("a").is_correct();
    JournalBuilder::opened(1, 100).at(ENDS_AT / 1_000 - 10).gets_not_active("a").violates(ACTIVE);
}

#[test]
fn not_active_after_extension_is_found() {
    let extended = |kind| {
        let journal =
            JournalBuilder::opened(1, 0).tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, kind);
        journal.at(ENDS_AT / 1_000 + 1).gets_not_active("a")
    };
    extended(AnswerKind::Data).with_shard_state(SaleState::Open, 2 * ENDS_AT).violates(ACTIVE);
    extended(AnswerKind::Unknown)
        .tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, AnswerKind::Data)
        .with_shard_state(SaleState::Open, 2 * ENDS_AT)
        .is_correct();
}

#[test]
fn claim_outside_the_window_is_found() {
    let rule = "no unit is sold outside the window";
    let journal = || JournalBuilder::opened(1, 100).at(200).buys("a");
    journal().claimed_at("order-a", 150 * SECOND).is_correct();
    journal().claimed_at("order-a", 99 * SECOND).violates(rule);
    journal().claimed_at("order-a", ENDS_AT * 1_000).violates(rule);
    let journal = journal().tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, AnswerKind::Data);
    journal
        .with_shard_state(SaleState::Open, 2 * ENDS_AT)
        .claimed_at("order-a", ENDS_AT * 1_000)
        .is_correct();
}

#[test]
fn claim_with_wrong_clock_is_tolerated() {
    let journal = |clock_error_ms| {
        let mut journal = JournalBuilder::opened(2, 0)
            .at(500)
            .tries_new_change(Change::Pause, AnswerKind::Data)
            .gets_not_active("a");
        if let Some(JournalEntry::SaleOpened(opened)) = journal.records.first_mut() {
            opened.clock_error_ms = clock_error_ms;
        }
        let journal = journal.tries_new_change(Change::Resume, AnswerKind::Data).buys("b");
        journal.claimed_at("order-b", 490 * SECOND).with_total(2)
    };
    journal(0).violates("a user with a unit is not refused");
    journal(20_000).is_correct();
}

#[test]
fn purchase_during_a_pause_is_found() {
    let paused = || JournalBuilder::opened(1, 0).tries_new_change(Change::Pause, AnswerKind::Data);
    let bought = paused().buys("a").claimed("order-a").tries_new_change(Change::Resume, AnswerKind::Data);
    bought.violates("no unit is sold during a pause");
    let earlier = JournalBuilder::opened(1, 0)
        .gets_unknown_outcome("a")
        .tries_new_change(Change::Pause, AnswerKind::Data)
        .buys("a");
    earlier.claimed_at("order-a", SECOND).tries_new_change(Change::Resume, AnswerKind::Data).is_correct();
}

#[test]
fn not_active_despite_claim_is_found() {
    let journal = |seconds| {
        let journal = JournalBuilder::opened(1, 0).buys("a").claimed("order-a");
        journal.at(ENDS_AT / 1_000 + seconds).gets_not_active("b")
    };
    let violated = journal(10).violated_rules();
    assert!(violated.contains(&"a reported purchase is not denied later"), "{violated:?}");
    // By then nodes no longer look for claims.
    journal(100).is_correct();
}

#[test]
fn sold_out_with_units_left_is_found() {
    JournalBuilder::opened(1, 0).gets_refusal("a", AnswerKind::SoldOut, None).violates(SOLD_OUT);
    JournalBuilder::opened(1, 0)
        .another_user_buys()
        .gets_refusal("a", AnswerKind::SoldOut, None)
        .is_correct();
}

#[test]
fn sold_out_after_restock_is_found() {
    let restocked = || JournalBuilder::opened(1, 0).another_user_buys();
    let change = Change::Restock { units: 5 };
    let reported =
        restocked().gets_refusal("a", AnswerKind::SoldOut, None).tries_new_change(change, AnswerKind::Data);
    reported.with_total(6).is_correct();
    let reported =
        restocked().tries_new_change(change, AnswerKind::Data).gets_refusal("a", AnswerKind::SoldOut, None);
    reported.with_total(6).violates(SOLD_OUT);
    let reported = restocked().tries_new_change(change, AnswerKind::Unknown).gets_refusal(
        "a",
        AnswerKind::SoldOut,
        None,
    );
    reported.retries_change(change, AnswerKind::Data).with_total(6).is_correct();
}

#[test]
fn missing_sale_is_found() {
    let rule = "a created sale is found";
    let mut journal = JournalBuilder::opened(1, 0);
    let request = journal.attempt("a");
    journal.answer(request, AnswerKind::NoSale, None);
    journal.violates(rule);

    let create = Change::Create { total_stock: 1, shards: 2, starts_at: 0, ends_at: ENDS_AT };
    let mut early = JournalBuilder::default().with_total(1);
    let request = early.attempt("a");
    let mut early =
        early.tries_new_change(create, AnswerKind::Data).with_shard_state(SaleState::Open, ENDS_AT);
    early.answer(request, AnswerKind::NoSale, None);
    early.is_correct();
}

impl JournalBuilder {
    fn another_user_buys(mut self) -> Self {
        let request = self.attempt("bob");
        let order = "order-bob";
        self.answer(request, AnswerKind::Purchased, Some(order));
        for record in &mut self.records {
            if let JournalEntry::Invoked(invoked) = record
                && invoked.request == request
            {
                invoked.user = "bob".into();
            }
        }
        self.final_state.claims.insert("bob".into(), Claim { order: order.into(), at_ms: self.now / 1_000 });
        self
    }
}
