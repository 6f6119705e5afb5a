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
    pub(super) fn tries_new_change(mut self, change: Change, status: Option<u16>) -> Self {
        self.operations += 1;
        self.retries_change(change, status, None)
    }

    /// Adds another try of the current change.
    pub(super) fn retries_change(
        mut self,
        change: Change,
        status: Option<u16>,
        reason: Option<&str>,
    ) -> Self {
        let request = self.records.len() as u64;
        self.now += SECOND;
        let (at, sale, via, operation) = (self.now, "flash".into(), "coordinator-0".into(), self.operations);
        self.records.push(JournalEntry::Operated(Operated { request, at, sale, via, operation, change }));
        self.answer(request, status, reason, None);
        self
    }

    /// Sets the final state of the shard.
    pub(super) fn with_shard_state(mut self, state: SaleState, ends_at: u64) -> Self {
        let starts_at = self.records.iter().find_map(|record| match record {
            JournalEntry::SaleOpened(opened) => Some(opened.starts_at),
            _ => None,
        });
        let window = Window { starts_at: starts_at.unwrap_or_default(), ends_at };
        self.final_state.shards = vec![ShardSettings { shard: 0, state, window }];
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
    let paused = || JournalBuilder::opened(1, 0).tries_new_change(Change::Pause, Some(200));
    paused().with_shard_state(SaleState::Paused, ENDS_AT).is_correct();
    paused().with_shard_state(SaleState::Open, ENDS_AT).violates(IN_FORCE);
    let resumed = || {
        paused().tries_new_change(Change::Resume, Some(503)).retries_change(Change::Resume, Some(200), None)
    };
    resumed().is_correct();
    resumed().with_shard_state(SaleState::Paused, ENDS_AT).violates(IN_FORCE);
}

#[test]
fn unknown_change_may_hold_until_superseded() {
    let unknown =
        || JournalBuilder::opened(1, 0).tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, Some(503));
    let unresolved = "the last change gets a definite answer";
    unknown().violates(unresolved);
    unknown().with_shard_state(SaleState::Open, 2 * ENDS_AT).violates(unresolved);
    let later = || unknown().tries_new_change(Change::Extend { ends_at: 3 * ENDS_AT }, Some(200));
    later().with_shard_state(SaleState::Open, 3 * ENDS_AT).is_correct();
    later().with_shard_state(SaleState::Open, 2 * ENDS_AT).violates(IN_FORCE);
}

#[test]
fn try_without_answer_may_take_effect_late() {
    let journal = |reason| {
        let journal = JournalBuilder::opened(1, 0).tries_new_change(Change::Resume, Some(200));
        let journal = journal.tries_new_change(Change::Pause, Some(503)).retries_change(
            Change::Pause,
            None,
            Some(reason),
        );
        let journal = journal
            .retries_change(Change::Pause, Some(200), None)
            .tries_new_change(Change::Resume, Some(200));
        journal.with_shard_state(SaleState::Paused, ENDS_AT)
    };
    journal(crate::journal::TIMED_OUT).is_correct();
    journal("connection refused").violates(IN_FORCE);
}

#[test]
fn confirmed_end_is_final() {
    let ended = || JournalBuilder::opened(1, 0).tries_new_change(Change::End, Some(200));
    ended().with_shard_state(SaleState::Ended, ENDS_AT).is_correct();
    ended().violates(IN_FORCE);
}

#[test]
fn shard_must_hold_the_extended_window() {
    let extended =
        || JournalBuilder::opened(1, 0).tries_new_change(Change::Extend { ends_at: 2 * ENDS_AT }, Some(200));
    extended().with_shard_state(SaleState::Open, 2 * ENDS_AT).is_correct();
    extended().violates(IN_FORCE);
}

#[test]
fn confirmed_restock_counts_once() {
    let change = Change::Restock { units: 5 };
    let restocked = || {
        JournalBuilder::opened(10, 0).tries_new_change(change, Some(503)).retries_change(
            change,
            Some(200),
            None,
        )
    };
    restocked().with_total(15).is_correct();
    restocked().with_total(20).violates(ONCE);
    restocked().with_total(10).violates(ONCE);
}

#[test]
fn unknown_restock_may_count() {
    let unknown = || JournalBuilder::opened(10, 0).tries_new_change(Change::Restock { units: 5 }, Some(503));
    unknown().is_correct();
    unknown().with_total(15).is_correct();
    unknown().with_total(12).violates(ONCE);
}

#[test]
fn created_sale_has_its_units_and_window() {
    let change = Change::Create { total_stock: 10, shards: 2, starts_at: 0, ends_at: ENDS_AT };
    let created = || {
        JournalBuilder::default()
            .tries_new_change(change, Some(201))
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
        .tries_new_change(Change::Pause, Some(409))
        .violates("a valid change is not refused");
}

#[test]
fn more_claims_than_units_are_found() {
    let journal = JournalBuilder::default().buys("a").claimed("order-a");
    assert!(journal.with_total(0).violated_rules().contains(&"claims do not exceed the units"));
}
