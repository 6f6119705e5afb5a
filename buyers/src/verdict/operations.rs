//! Operators' changes of one sale, each with all its tries, and the settings that may be in force at a given time.
//!
//! A confirmed change takes effect between its first try and its confirmation. An unconfirmed change may take effect
//! until a change that began later is confirmed. A try without an answer may reach its coordinator at any later time,
//! for instance when a frozen coordinator continues.

use std::collections::BTreeMap;

use rediscluster::EpochMs;
use stock::sale::{SaleState, Window};

use crate::{
    AnswerKind,
    journal::{Change, JournalEntry, Micros, Operated, answers},
};

/// A change, from its first try to its last answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) change: Change,
    pub(super) began: Micros,
    /// Time of the confirmation.
    pub(super) done: Option<Micros>,
    /// Time of the last answer, or of the last try if that has no answer.
    pub(super) ended: Micros,
    /// True when a try was refused.
    pub(super) is_refused: bool,
    /// True when a try was never answered, so it may take effect late.
    pub(super) has_lost_try: bool,
}

/// All changes of a sale, and its settings before them.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pub(super) all: Vec<Operation>,
    /// Units and window at the creation, and the time from which the sale is known to exist.
    pub(super) created: Option<(u64, Window, Micros)>,
    /// Largest error of a shard's clock.
    pub(super) clock_error: Micros,
}

impl Operations {
    pub(super) fn of(records: &[JournalEntry]) -> Self {
        let all = collect(records);
        let opened = records.iter().find_map(|record| match record {
            JournalEntry::SaleOpened(opened) => Some(opened),
            _ => None,
        });
        let by_operator = all.iter().find_map(|operation| match operation.change {
            Change::Create { total_stock, starts_at, ends_at, .. } => {
                Some((total_stock, Window { starts_at, ends_at }, operation.done?))
            }
            _ => None,
        });
        let before = opened.map(|opened| {
            let window = Window { starts_at: opened.starts_at, ends_at: opened.ends_at };
            (opened.total_stock, window, opened.at)
        });
        let clock_error = opened.map_or(0, |opened| opened.clock_error_ms * 1_000);
        Self { all, created: by_operator.or(before), clock_error }
    }

    /// Returns the states that may have been in force at some time from `from` to `to`.
    pub(super) fn states(&self, from: Micros, to: Micros) -> Vec<SaleState> {
        let state = |change| match change {
            Change::Pause => Some(SaleState::Paused),
            Change::Resume => Some(SaleState::Open),
            Change::End => Some(SaleState::Ended),
            Change::Create { .. } | Change::Restock { .. } | Change::Extend { .. } => None,
        };
        self.possible(from, to, SaleState::Open, state)
    }

    /// Returns the ends that may have been in force at some time from `from` to `to`. Empty if the sale's creation is
    /// unknown.
    pub(super) fn ends(&self, from: Micros, to: Micros) -> Vec<EpochMs> {
        let Some((_, window, _)) = self.created else { return Vec::new() };
        let end = |change| match change {
            Change::Extend { ends_at } => Some(ends_at),
            _ => None,
        };
        self.possible(from, to, window.ends_at, end)
    }

    /// Returns the units that certainly existed at this time. None if the sale's creation is unknown.
    pub(super) fn total_at(&self, at: Micros) -> Option<u64> {
        let restocked =
            self.restocks().filter(|(_, operation)| operation.done.is_some_and(|done| done <= at));
        let (created, ..) = self.created?;
        Some(created + restocked.map(|(units, _)| units).sum::<u64>())
    }

    /// Returns the units of restocks whose outcome is unknown.
    pub(super) fn unknown_restocks(&self) -> Vec<u64> {
        let unknown = self.restocks().filter(|(_, operation)| operation.done.is_none());
        unknown.filter(|(_, operation)| !operation.is_refused).map(|(units, _)| units).collect()
    }

    fn restocks(&self) -> impl Iterator<Item = (u64, &Operation)> {
        self.all.iter().filter_map(|operation| match operation.change {
            Change::Restock { units } => Some((units, operation)),
            _ => None,
        })
    }

    fn possible<T: Copy + PartialEq>(
        &self,
        from: Micros,
        to: Micros,
        first: T,
        value: impl Fn(Change) -> Option<T>,
    ) -> Vec<T> {
        let of_kind: Vec<(T, &Operation)> =
            self.all.iter().filter_map(|operation| Some((value(operation.change)?, operation))).collect();
        // Changes may overlap: one is superseded when another one that began after its end is confirmed.
        let is_superseded = |ended: Micros| {
            of_kind
                .iter()
                .any(|(_, later)| later.began >= ended && later.done.is_some_and(|done| done <= from))
        };
        let mut possible = if is_superseded(0) { Vec::new() } else { vec![first] };
        for (value, operation) in &of_kind {
            let may_hold = operation.has_lost_try || !operation.is_refused && !is_superseded(operation.ended);
            if operation.began <= to && may_hold && !possible.contains(value) {
                possible.push(*value);
            }
        }
        possible
    }
}

fn collect(records: &[JournalEntry]) -> Vec<Operation> {
    let answers = answers(records);
    let mut operations: BTreeMap<u64, Operation> = BTreeMap::new();
    for record in records {
        let JournalEntry::Operated(Operated { request, at, operation, change, .. }) = record else {
            continue;
        };
        let operation = operations.entry(*operation).or_insert(Operation {
            change: *change,
            began: *at,
            done: None,
            ended: *at,
            is_refused: false,
            has_lost_try: false,
        });
        let answer = answers.get(request);
        operation.ended = operation.ended.max(answer.map_or(*at, |answer| answer.at));
        match answer.map(|answer| answer.kind) {
            Some(AnswerKind::Data) => operation.done = operation.done.or(answer.map(|answer| answer.at)),
            Some(AnswerKind::Refused) => operation.is_refused = true,
            // A request may still take effect, unless its connection broke because the process is gone.
            None | Some(AnswerKind::TimedOut) => operation.has_lost_try = true,
            Some(_) => {}
        }
    }
    operations.into_values().collect()
}
