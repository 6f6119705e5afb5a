//! Stories of operators: what they were told, and what the shards hold in the end.

use stock::sale::{SaleState, Window};

use super::*;
use crate::{
    ShardSettings,
    journal::{Change, Operated, SaleOpened},
};

const DONE: &str = "a change that an operator was told to be done stays done";
const ONCE: &str = "a restock adds its units once";

/// The end of every story's sale, as it is opened.
pub(super) const ENDS_AT: u64 = 1_000_000;

impl JournalBuilder {
    /// A sale of so many units from the second `starts_at` on.
    pub(super) fn opened(total_stock: u64, starts_at: u64) -> Self {
        let starts_at = starts_at * 1_000;
        let opened = SaleOpened {
            at: 0,
            sale: "flash".into(),
            total_stock,
            starts_at,
            ends_at: ENDS_AT,
            clock_error_ms: 0,
        };
        let mut story = Self { records: vec![JournalEntry::SaleOpened(opened)], ..Self::default() };
        story.end.total = total_stock;
        story.holds(SaleState::Open, ENDS_AT)
    }

    /// One try of a new change.
    pub(super) fn operates(mut self, change: Change, status: Option<u16>) -> Self {
        self.operations += 1;
        self.tries(change, status, None)
    }

    /// One more try of the change at hand.
    pub(super) fn tries(mut self, change: Change, status: Option<u16>, reason: Option<&str>) -> Self {
        let request = self.records.len() as u64;
        self.now += SECOND;
        let (at, sale, via, operation) = (self.now, "flash".into(), "coordinator-0".into(), self.operations);
        self.records.push(JournalEntry::Operated(Operated { request, at, sale, via, operation, change }));
        self.answer(request, status, reason, None);
        self
    }

    /// What the shard holds in the end.
    pub(super) fn holds(mut self, state: SaleState, ends_at: u64) -> Self {
        let starts_at = self.records.iter().find_map(|record| match record {
            JournalEntry::SaleOpened(opened) => Some(opened.starts_at),
            _ => None,
        });
        let window = Window { starts_at: starts_at.unwrap_or_default(), ends_at };
        self.end.shards = vec![ShardSettings { shard: 0, state, window }];
        self
    }

    pub(super) fn with_total(mut self, total: u64) -> Self {
        self.end.total = total;
        self
    }

    #[track_caller]
    pub(super) fn is_sound(&self) {
        assert_eq!(self.broken_rules(), Vec::<&str>::new());
    }
}

#[test]
fn the_last_state_told_is_held() {
    let paused = || JournalBuilder::opened(1, 0).operates(Change::Pause, Some(200));
    paused().holds(SaleState::Paused, ENDS_AT).is_sound();
    paused().holds(SaleState::Open, ENDS_AT).breaks(DONE);
    let resumed = || paused().operates(Change::Resume, Some(503)).tries(Change::Resume, Some(200), None);
    resumed().is_sound();
    resumed().holds(SaleState::Paused, ENDS_AT).breaks(DONE);
}

#[test]
fn an_unknown_change_may_hold_or_not_until_a_later_one_is_done() {
    let unknown =
        || JournalBuilder::opened(1, 0).operates(Change::Extend { ends_at: 2 * ENDS_AT }, Some(503));
    let undone = "a change is done in the end";
    unknown().breaks(undone);
    unknown().holds(SaleState::Open, 2 * ENDS_AT).breaks(undone);
    let later = || unknown().operates(Change::Extend { ends_at: 3 * ENDS_AT }, Some(200));
    later().holds(SaleState::Open, 3 * ENDS_AT).is_sound();
    later().holds(SaleState::Open, 2 * ENDS_AT).breaks(DONE);
}

#[test]
fn a_try_that_was_never_answered_may_take_effect_late() {
    let story = |reason| {
        let story = JournalBuilder::opened(1, 0).operates(Change::Resume, Some(200));
        let story = story.operates(Change::Pause, Some(503)).tries(Change::Pause, None, Some(reason));
        let story = story.tries(Change::Pause, Some(200), None).operates(Change::Resume, Some(200));
        story.holds(SaleState::Paused, ENDS_AT)
    };
    story(crate::journal::TIMED_OUT).is_sound();
    story("connection refused").breaks(DONE);
}

#[test]
fn an_end_told_is_final() {
    let ended = || JournalBuilder::opened(1, 0).operates(Change::End, Some(200));
    ended().holds(SaleState::Ended, ENDS_AT).is_sound();
    ended().breaks(DONE);
}

#[test]
fn a_window_that_shards_do_not_hold() {
    let extended =
        || JournalBuilder::opened(1, 0).operates(Change::Extend { ends_at: 2 * ENDS_AT }, Some(200));
    extended().holds(SaleState::Open, 2 * ENDS_AT).is_sound();
    extended().breaks(DONE);
}

#[test]
fn a_restock_that_was_told_is_there_once() {
    let change = Change::Restock { units: 5 };
    let restocked =
        || JournalBuilder::opened(10, 0).operates(change, Some(503)).tries(change, Some(200), None);
    restocked().with_total(15).is_sound();
    restocked().with_total(20).breaks(ONCE);
    restocked().with_total(10).breaks(ONCE);
}

#[test]
fn a_restock_that_is_unknown_may_be_there() {
    let unknown = || JournalBuilder::opened(10, 0).operates(Change::Restock { units: 5 }, Some(503));
    unknown().is_sound();
    unknown().with_total(15).is_sound();
    unknown().with_total(12).breaks(ONCE);
}

#[test]
fn a_created_sale_has_its_units_and_its_window() {
    let change = Change::Create { total_stock: 10, shards: 2, starts_at: 0, ends_at: ENDS_AT };
    let created = || JournalBuilder::default().operates(change, Some(201)).holds(SaleState::Open, ENDS_AT);
    created().with_total(10).is_sound();
    created().with_total(20).breaks(ONCE);
    created().with_total(10).holds(SaleState::Creating, ENDS_AT).breaks(DONE);
    created().with_total(10).holds(SaleState::Open, 5).breaks(DONE);
}

#[test]
fn a_possible_change_is_refused() {
    JournalBuilder::opened(1, 0)
        .operates(Change::Pause, Some(409))
        .breaks("a change that is possible is not refused");
}

#[test]
fn more_claims_than_units() {
    let story = JournalBuilder::default().buys("a").claimed("order-a");
    assert!(story.with_total(0).broken_rules().contains(&"no more is sold than there is"));
}
