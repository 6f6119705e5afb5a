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
use jiff::Timestamp;
use rand::{RngExt as _, rng};
use rediscluster::EpochMs;
use reqwest::{Client, RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use testkit::{Stack, stack::Coordinator};
use tokio::time::sleep;

use crate::{
    journal::{Answered, Change, Journal, JournalEntry, Operated, TIMED_OUT},
    load::retry_after,
};

pub(crate) use execute::{FinishedSale, OperatorContext, execute};
pub(crate) use plan::{SalePlan, plans};

/// Time for which a change is retried. Faults follow each other, and one of them may take most of this.
const CHANGE_LIMIT: Duration = Duration::from_secs(90);

/// Time limit of a request. A running coordinator answers within seconds, and a frozen one continues before this.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Sends changes and writes their journal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    client: Client,
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
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client without TLS can be built");
        Self { client, stack, journal, counters: Arc::default() }
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
        while Instant::now() < deadline {
            let (answer, pause) = self.try_once(sale, operation, change).await?;
            if let Some(is_done) = answer.is_done() {
                self.counters.done.fetch_add(u64::from(is_done), Ordering::Relaxed);
                return Ok(is_done);
            }
            sleep(pause).await;
        }
        Ok(false)
    }

    async fn try_once(&self, sale: &str, operation: u64, change: Change) -> Result<(Answered, Duration)> {
        self.counters.tries.fetch_add(1, Ordering::Relaxed);
        let Some(coordinator) = self.pick_coordinator() else {
            return Ok((Answered::default(), PAUSE_DEFAULT));
        };
        let request = self.journal.next_request();
        let prepared = self.request(coordinator.url(), sale, operation, change);
        let (at, sale, via) = (self.journal.now(), sale.to_owned(), coordinator.process().name().to_owned());
        let operated = Operated { request, at, sale, via, operation, change };
        self.journal.append(&JournalEntry::Operated(operated)).await?;
        let (mut answered, pause) = read(prepared.send().await).await;
        (answered.request, answered.at) = (request, self.journal.now());
        self.journal.append(&JournalEntry::Answered(answered.clone())).await?;
        Ok((answered, pause))
    }

    /// Returns a random coordinator whose process runs. It may be frozen.
    fn pick_coordinator(&self) -> Option<Arc<Coordinator>> {
        let mut running = self.stack.coordinators();
        running.retain(|coordinator| coordinator.process().is_running());
        let chosen = rng().random_range(0..running.len().max(1));
        running.get(chosen).cloned()
    }

    fn request(&self, base_url: &str, sale: &str, operation: u64, change: Change) -> RequestBuilder {
        let (action, body) = match change {
            Change::Create { total_stock, shards, starts_at, ends_at } => (
                None,
                json!({ "id": sale, "totalStock": total_stock, "shards": shards, "startsAt": iso8601(starts_at),
                    "endsAt": iso8601(ends_at), "productName": "Lamp", "productPrice": 5.0 }),
            ),
            Change::Restock { units } => (Some("restock"), json!({ "units": units })),
            Change::Pause => (Some("pause"), Value::Null),
            Change::Resume => (Some("resume"), Value::Null),
            Change::Extend { ends_at } => (Some("extend"), json!({ "endsAt": iso8601(ends_at) })),
            Change::End => (Some("end"), Value::Null),
        };
        let url = action.map_or_else(
            || format!("{base_url}/admin/sales"),
            |action| format!("{base_url}/admin/sales/{sale}/{action}"),
        );
        let request = self.client.post(url).bearer_auth(self.stack.admin_token());
        let request = match change {
            Change::Restock { .. } => request.header("idempotency-key", format!("{sale}-{operation}")),
            _ => request,
        };
        if body.is_null() {
            return request;
        }
        request.header(CONTENT_TYPE, "application/json").body(body.to_string())
    }
}

/// Pause between two tries when the answer has no `Retry-After`.
const PAUSE_DEFAULT: Duration = Duration::from_millis(300);

async fn read(sent: reqwest::Result<reqwest::Response>) -> (Answered, Duration) {
    let received = match sent {
        Ok(response) => {
            let (status, pause) = (response.status().as_u16(), retry_after(&response));
            response.text().await.map(|body| (status, body, pause))
        }
        Err(error) => Err(error),
    };
    match received {
        // The body of a success repeats the requested settings, so it is not kept.
        Ok((status @ (200 | 201), _, pause)) => {
            (Answered { status: Some(status), ..Answered::default() }, pause)
        }
        Ok((status, body, pause)) => {
            (Answered { status: Some(status), reason: Some(body), ..Answered::default() }, pause)
        }
        Err(error) => {
            let reason = if error.is_timeout() { TIMED_OUT.to_owned() } else { format!("{error:?}") };
            (Answered { reason: Some(reason), ..Answered::default() }, PAUSE_DEFAULT)
        }
    }
}

fn iso8601(at: EpochMs) -> String {
    let at = Timestamp::from_millisecond(at.cast_signed());
    at.expect("a sale's times are in this century").to_string()
}
