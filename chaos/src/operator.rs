//! An operator who changes sales while faults happen: creates, restocks, pauses, resumes, extends and ends them.
//!
//! Each change is sent to a running coordinator and retried, with the same key and body, until its answer is definite
//! or [`CHANGE_LIMIT`] is over. Each try and its answer are in the journal.

mod execute;
mod plan;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use buyers::{
    Answer, AnswerKind,
    journal::{Answered, Change, Journal, JournalEntry, Operated},
    wait_to_retry,
};
use rand::{RngExt as _, rng};
use serde::{Deserialize, Serialize};
use testkit::{Stack, stack::Coordinator};

pub(crate) use execute::{FinishedSale, OperatorContext, execute};
pub(crate) use plan::{SalePlan, plans};

/// Time for which a change is retried. Faults follow each other, and one of them may take most of this.
const CHANGE_LIMIT: Duration = Duration::from_secs(90);

/// Sends changes and writes their journal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    stack: Arc<Stack>,
    journal: Journal,
    counts: Arc<Mutex<ChangeCounts>>,
}

/// Counts of operators' changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeCounts {
    /// Changes that operators requested.
    pub changes: u64,
    /// Changes that were confirmed.
    pub changes_done: u64,
    /// Requests for these changes, including retries.
    pub change_tries: u64,
}

impl Operator {
    /// Creates an operator with this journal.
    pub fn new(stack: Arc<Stack>, journal: Journal) -> Self {
        Self { stack, journal, counts: Arc::default() }
    }

    pub(crate) fn counts(&self) -> MutexGuard<'_, ChangeCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change. Returns true when a coordinator confirmed it.
    ///
    /// # Errors
    /// Fails when the journal cannot be written.
    pub async fn apply(&self, sale: &str, change: Change) -> Result<bool> {
        self.counts().changes += 1;
        let operation = self.journal.next_request();
        let deadline = Instant::now() + CHANGE_LIMIT;
        loop {
            let answer = self.try_once(sale, operation, change).await?;
            let is_done = answer.kind == AnswerKind::Data;
            self.counts().changes_done += u64::from(is_done);
            let is_over = is_done || answer.kind == AnswerKind::Refused;
            if is_over || !wait_to_retry(answer.retry_after, deadline).await {
                return Ok(is_done);
            }
        }
    }

    async fn try_once(&self, sale: &str, operation: u64, change: Change) -> Result<Answer> {
        self.counts().change_tries += 1;
        let Some(coordinator) = self.pick_coordinator() else { return Ok(Answer::default()) };
        let request = self.journal.next_request();
        let (at, via) = (self.journal.now(), coordinator.process().name().to_owned());
        let operated = Operated { request, at, sale: sale.to_owned(), via, operation, change };
        self.journal.append(&JournalEntry::Operated(operated)).await?;
        let key = format!("{sale}-{operation}");
        let answer = self.stack.admin().change(coordinator.url(), sale, change, &key).await;
        let answered = Answered::of(request, self.journal.now(), &answer);
        self.journal.append(&JournalEntry::Answered(answered)).await?;
        Ok(answer)
    }

    /// Returns a random coordinator whose process runs. It may be frozen.
    fn pick_coordinator(&self) -> Option<Arc<Coordinator>> {
        let mut running = self.stack.coordinators();
        running.retain(|coordinator| coordinator.process().is_running());
        let chosen = rng().random_range(0..running.len().max(1));
        running.get(chosen).cloned()
    }
}
