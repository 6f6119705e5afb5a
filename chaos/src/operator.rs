//! An operator at work while faults happen: creates sales, restocks, pauses and resumes, extends and ends.
//!
//! Each change is tried through a coordinator that runs, with the same key and body, until its answer is definite or
//! [`PATIENCE`] is over. Each try and its answer are in the journal.

mod plan;
mod work;

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
use reqwest::{Client, RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use stock::sale::EpochMs;
use testkit::{Stack, stack::Coordinator};
use tokio::time::sleep;

use crate::{
    journal::{Answered, Change, Journal, JournalEntry, Operated, TIMED_OUT},
    load::retry_after,
};

pub(crate) use plan::{SalePlan, plans};
pub(crate) use work::{FinishedSale, OperatorContext, work};

/// How long a change is tried. Faults follow each other, and one of them may take most of this.
const PATIENCE: Duration = Duration::from_secs(90);

/// A coordinator that answers at all does so within seconds. A frozen one goes on before this.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Makes changes and keeps their journal. Cheap to clone.
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

/// What operators asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangeCounts {
    pub(crate) asked: u64,
    pub(crate) tries: u64,
    pub(crate) done: u64,
}

impl Operator {
    /// An operator who writes down what happens.
    pub fn new(stack: Arc<Stack>, journal: Journal) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client without TLS has nothing that could fail");
        Self { client, stack, journal, counters: Arc::default() }
    }

    pub(crate) fn changes(&self) -> ChangeCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { operations, tries, done } = &*self.counters;
        ChangeCounts { asked: load(operations), tries: load(tries), done: load(done) }
    }

    /// Makes a change. Says whether it was answered that it is done.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn make(&self, sale: &str, change: Change) -> Result<bool> {
        self.counters.operations.fetch_add(1, Ordering::Relaxed);
        let operation = self.journal.next_request();
        let deadline = Instant::now() + PATIENCE;
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
        let Some(coordinator) = self.some_coordinator() else {
            return Ok((Answered::default(), PAUSE_DEFAULT));
        };
        let request = self.journal.next_request();
        let prepared = self.request(coordinator.url(), sale, operation, change);
        let (at, sale, via) = (self.journal.now(), sale.to_owned(), coordinator.process().name().to_owned());
        let operated = Operated { request, at, sale, via, operation, change };
        self.journal.note(&JournalEntry::Operated(operated)).await?;
        let (mut answered, pause) = read(prepared.send().await).await;
        (answered.request, answered.at) = (request, self.journal.now());
        self.journal.note(&JournalEntry::Answered(answered.clone())).await?;
        Ok((answered, pause))
    }

    /// One of the coordinators whose process runs; it may be frozen.
    fn some_coordinator(&self) -> Option<Arc<Coordinator>> {
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

/// Between two tries, where the answer does not say.
const PAUSE_DEFAULT: Duration = Duration::from_millis(300);

async fn read(sent: reqwest::Result<reqwest::Response>) -> (Answered, Duration) {
    let told = match sent {
        Ok(response) => {
            let (status, pause) = (response.status().as_u16(), retry_after(&response));
            response.text().await.map(|body| (status, body, pause))
        }
        Err(error) => Err(error),
    };
    match told {
        // Settings that are as asked for say nothing new.
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
