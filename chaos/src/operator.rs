//! An operator who changes sales while faults happen: creates, restocks, pauses, resumes, extends and ends them.
//!
//! Each change is sent to a running coordinator and retried, with the same key and body, until its answer is definite
//! or [`CHANGE_LIMIT`] is over. Each try and its answer are in the journal.

mod execute;
mod plan;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use buyers::{
    journal::{Answered, Change, Journal, JournalEntry, Operated},
    wait_to_retry,
};
use rand::{RngExt as _, rng};
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
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    operations: AtomicU64,
    tries: AtomicU64,
    done: AtomicU64,
}

/// Counts of operators' changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangeCounts {
    pub(crate) asked: u64,
    pub(crate) tries: u64,
    pub(crate) done: u64,
}

impl Operator {
    /// Creates an operator with this journal.
    pub fn new(stack: Arc<Stack>, journal: Journal) -> Self {
        Self { stack, journal, counters: Arc::default() }
    }

    pub(crate) fn changes(&self) -> ChangeCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { operations, tries, done } = &*self.counters;
        ChangeCounts { asked: load(operations), tries: load(tries), done: load(done) }
    }

    /// Applies a change. Returns true when a coordinator confirmed it.
    ///
    /// # Errors
    /// Fails when the journal cannot be written.
    pub async fn apply(&self, sale: &str, change: Change) -> Result<bool> {
        self.counters.operations.fetch_add(1, Ordering::Relaxed);
        let operation = self.journal.next_request();
        let deadline = Instant::now() + CHANGE_LIMIT;
        loop {
            let (answer, retry_after) = self.try_once(sale, operation, change).await?;
            if let Some(is_done) = answer.is_done() {
                self.counters.done.fetch_add(u64::from(is_done), Ordering::Relaxed);
                return Ok(is_done);
            }
            if !wait_to_retry(retry_after, deadline).await {
                return Ok(false);
            }
        }
    }

    async fn try_once(
        &self,
        sale: &str,
        operation: u64,
        change: Change,
    ) -> Result<(Answered, Option<Duration>)> {
        self.counters.tries.fetch_add(1, Ordering::Relaxed);
        let Some(coordinator) = self.pick_coordinator() else { return Ok((Answered::default(), None)) };
        let request = self.journal.next_request();
        let (at, via) = (self.journal.now(), coordinator.process().name().to_owned());
        let operated = Operated { request, at, sale: sale.to_owned(), via, operation, change };
        self.journal.append(&JournalEntry::Operated(operated)).await?;
        let key = format!("{sale}-{operation}");
        let (answered, retry_after) = self.stack.admin().change(coordinator.url(), sale, change, &key).await;
        let answered = Answered { request, at: self.journal.now(), ..answered };
        self.journal.append(&JournalEntry::Answered(answered.clone())).await?;
        Ok((answered, retry_after))
    }

    /// Returns a random coordinator whose process runs. It may be frozen.
    fn pick_coordinator(&self) -> Option<Arc<Coordinator>> {
        let mut running = self.stack.coordinators();
        running.retain(|coordinator| coordinator.process().is_running());
        let chosen = rng().random_range(0..running.len().max(1));
        running.get(chosen).cloned()
    }
}
