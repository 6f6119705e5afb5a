//! Journals of operators' changes, compared with the final state of the shards.

use stock::sale::{SaleState, Window};

use super::*;
use crate::{
    ShardSettings,
    journal::{Change, Operated, SaleOpened},
};

const IN_FORCE: &str = "a confirmed change stays in force";
const ONCE: &str = "a restock adds its units once";

/// End of the sale's window in every journal, as it is opened.
pub(super) const ENDS_AT: u64 = 1_000_000;

impl JournalBuilder {
    /// Opens a sale of `total_stock` units that starts at the second `starts_at`.
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
        let mut journal = Self { records: vec![JournalEntry::SaleOpened(opened)], ..Self::default() };
        journal.final_state.total = total_stock;
        journal.with_shard_state(SaleState::Open, ENDS_AT)
    }

    /// Adds the first try of a new change.
    pub(super) fn tries_new_change(mut self, change: Change, kind: AnswerKind) -> Self {
        self.operations += 1;
        self.retries_change(change, kind)
    }

    /// Adds another try of the current change.
    pub(super) fn retries_change(mut self, change: Change, kind: AnswerKind) -> Self {
        let request = self.records.len() as u64;
        self.now += SECOND;
        let (at, sale, via, operation) = (self.now, "flash".into(), "coordinator-0".into(), self.operations);
        self.records.push(JournalEntry::Operated(Operated { request, at, sale, via, operation, change }));
        self.answer(request, kind, None);
        self
    }

    /// Sets the final state of the shard.
    pub(super) fn with_shard_state(mut self, state: SaleState, ends_at: u64) -> Self {
        let starts_at = self.records.iter().find_map(|record| match record {
            JournalEntry::SaleOpened(opened) => Some(opened.starts_at),
            _ => None,
        });
        let window = Window { starts_at: starts_at.unwrap_or_default(), ends_at };
        self.final_state.shards = vec![ShardSettings { version: 1, state, window }];
        self
    }

    pub(super) fn with_total(mut self, total: u64) -> Self {
        self.final_state.total = total;
        self
    }

    #[track_caller]
    pub(super) fn is_correct(&self) {
        assert_eq!(self.violated_rules(), Vec::<&str>::new());
    }
}

#[test]
fn shard_must_hold_the_last_confirmed_state() {
    let paused = || JournalBuilder::opened(1, 0).tries_new_change(Change::Pause, AnswerKind::Data);
    paused().with_shard_state(SaleState::Paused, ENDS_AT).is_correct();
    paused().with_shard_state(SaleState::Open, ENDS_AT).violates(IN_FORCE);
    let resumed = || {
        paused()
            .tries_new_change(Change::Resume, AnswerKind::Unknown)
            .retries_change(Change::Resume, AnswerKind::Data)
    };
    resumed().is_correct();
    resumed().with_shard_state(SaleState::Paused, ENDS_AT).violates(IN_FORCE);
}

#[test]
fn unknown_change_may_hold_until_superseded() {
    let unknown = || {
        JournalBuilder::opened(1, 0)
            .tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, AnswerKind::Unknown)
    };
    let unresolved = "the last change gets a definite answer";
    unknown().violates(unresolved);
    unknown().with_shard_state(SaleState::Open, 2 * ENDS_AT).violates(unresolved);
    let later = || unknown().tries_new_change(Change::Extend { ends_at: 3 * ENDS_AT }, AnswerKind::Data);
    later().with_shard_state(SaleState::Open, 3 * ENDS_AT).is_correct();
    later().with_shard_state(SaleState::Open, 2 * ENDS_AT).violates(IN_FORCE);
}

#[test]
fn try_without_answer_may_take_effect_late() {
    let journal = |kind| {
        let journal = JournalBuilder::opened(1, 0).tries_new_change(Change::Resume, AnswerKind::Data);
        let journal = journal.tries_new_change(Change::Pause, AnswerKind::Unknown);
        let journal = journal.retries_change(Change::Pause, kind);
        let journal = journal
            .retries_change(Change::Pause, AnswerKind::Data)
            .tries_new_change(Change::Resume, AnswerKind::Data);
        journal.with_shard_state(SaleState::Paused, ENDS_AT)
    };
    journal(AnswerKind::TimedOut).is_correct();
    journal(AnswerKind::NoAnswer).violates(IN_FORCE);
}

#[test]
fn confirmed_end_is_final() {
    let ended = || JournalBuilder::opened(1, 0).tries_new_change(Change::End, AnswerKind::Data);
    ended().with_shard_state(SaleState::Ended, ENDS_AT).is_correct();
    ended().violates(IN_FORCE);
}

#[test]
fn shard_must_hold_the_extended_window() {
    let extended = || {
        JournalBuilder::opened(1, 0)
            .tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, AnswerKind::Data)
    };
    extended().with_shard_state(SaleState::Open, 2 * ENDS_AT).is_correct();
    extended().violates(IN_FORCE);
}

#[test]
fn confirmed_restock_counts_once() {
    let change = Change::Restock { units: 5 };
    let restocked = || {
        let journal = JournalBuilder::opened(10, 0).tries_new_change(change, AnswerKind::Unknown);
        journal.retries_change(change, AnswerKind::Data)
    };
    restocked().with_total(15).is_correct();
    restocked().with_total(20).violates(ONCE);
    restocked().with_total(10).violates(ONCE);
}

#[test]
fn unknown_restock_may_count() {
    let unknown =
        || JournalBuilder::opened(10, 0).tries_new_change(Change::Restock { units: 5 }, AnswerKind::Unknown);
    unknown().is_correct();
    unknown().with_total(15).is_correct();
    unknown().with_total(12).violates(ONCE);
}

#[test]
fn created_sale_has_its_units_and_window() {
    let change = Change::Create { total_stock: 10, shards: 2, starts_at: 0, ends_at: ENDS_AT };
    let created = || {
        JournalBuilder::default()
            .tries_new_change(change, AnswerKind::Data)
            .with_shard_state(SaleState::Open, ENDS_AT)
    };
    created().with_total(10).is_correct();
    created().with_total(20).violates(ONCE);
    created().with_total(10).with_shard_state(SaleState::Creating, ENDS_AT).violates(IN_FORCE);
    created().with_total(10).with_shard_state(SaleState::Open, 5).violates(IN_FORCE);
}

#[test]
fn refusal_of_a_valid_change_is_found() {
    JournalBuilder::opened(1, 0)
        .tries_new_change(Change::Pause, AnswerKind::Refused)
        .violates("a valid change is not refused");
}

#[test]
fn more_claims_than_units_are_found() {
    let journal = JournalBuilder::default().buys("a").claimed("order-a");
    assert!(journal.with_total(0).violated_rules().contains(&"claims do not exceed the units"));
}
