//! The live view: a page on the coordinator's port that shows a sale in progress, and the events that feed it.
//!
//! It is read-only and needs no token, because it shows no user ids and nothing secret. Everyone who can reach this
//! port may watch. Every coordinator shows the same, as leader or follower: while a sale has viewers, the coordinator
//! reads the shards itself. The live view makes no decisions, and no other part waits for it.

mod history;
mod moves;
mod page;
mod report;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use service::edge::{self, AdmitAll};
use service::events::{EventHub, event, stream_of};
use service::problem::Problem;
use stock::ids::SaleId;
use stock::layout::{Fingerprint, SaleKeys};
use stock::sale::Sale;
use stock::snapshot::Snapshot;
use stock::store::ReadSnapshot;

use crate::admin::CoordinatorHandle;
use crate::context::Context;
use crate::coordinator::Coordinator;
use crate::desired_state::DesiredState;
use crate::rounds::ticks;
use history::History;
use report::sale_list;
use watch::SaleWatch;

/// Most viewers at a time: some screens, and everyone who works on the sale.
const VIEWERS_MAX: usize = 200;
/// Time from one point of the history to the next.
const HISTORY_PERIOD: Duration = Duration::from_secs(1);
/// Longest time to the head of a response.
const DEADLINE: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The live view of all sales. Clones share it.
#[derive(Clone)]
pub struct LiveFeed(Arc<Inner>);

struct Inner {
    handle: CoordinatorHandle,
    default_sale: SaleId,
    events: EventHub<SaleId>,
    histories: Mutex<BTreeMap<Fingerprint, History>>,
}

impl LiveFeed {
    /// A live view of the sales of this coordinator. Without a sale in the path it shows `default_sale`.
    pub fn new(handle: CoordinatorHandle, default_sale: SaleId) -> Self {
        let (events, histories) = (EventHub::new(VIEWERS_MAX), Mutex::default());
        Self(Arc::new(Inner { handle, default_sale, events, histories }))
    }

    /// The page and its endpoints.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .route("/live/sales", get(sales))
            .route("/live/sales/{sale}/events", get(events))
            .route("/live/sale/events", get(events));
        edge::wrap(routes.with_state(self.clone()).merge(page::router()), AdmitAll, DEADLINE)
    }

    /// Ends all streams.
    pub fn close(&self) {
        self.0.events.close();
    }

    /// Records how many units were sold at which time, so that new viewers see the last minutes. Never returns.
    pub async fn record_history(&self, coordinator: &Coordinator) {
        let mut ticks = ticks(HISTORY_PERIOD);
        loop {
            ticks.tick().await;
            for Snapshot { fingerprint, taken_at, sold, .. } in read_snapshots(&coordinator.context).await {
                self.histories().entry(fingerprint).or_default().push(taken_at, sold);
            }
        }
    }

    fn context(&self) -> Result<Arc<Context>, Problem> {
        Ok(self.0.handle.coordinator().ok_or_else(unavailable)?.context.clone())
    }

    fn histories(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, History>> {
        self.0.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sale to show, if it exists.
    fn choose(&self, known: &BTreeMap<SaleId, DesiredState>, named: Option<&str>) -> Option<Sale> {
        let desired = match named {
            Some(named) => known.get(&named.parse().ok()?),
            None => default_sale(known, &self.0.default_sale),
        };
        desired.map(|desired| desired.sale.clone())
    }
}

/// The default sale; if it does not exist, the sale that starts last.
fn default_sale<'a>(known: &'a BTreeMap<SaleId, DesiredState>, default: &SaleId) -> Option<&'a DesiredState> {
    let latest = || known.values().max_by_key(|desired| desired.sale.config.window.starts_at);
    known.get(default).or_else(latest)
}

/// Reads the latest snapshots of the sales that are observed. A sale whose snapshot cannot be read has a gap in its history.
async fn read_snapshots(Context { reads, records, .. }: &Context) -> Vec<Snapshot> {
    let keys: Vec<SaleKeys> = records.observed().iter().map(|(id, _)| SaleKeys::new(id)).collect();
    let snapshots = reads.poll_all(&keys.iter().map(ReadSnapshot).collect::<Vec<_>>()).await;
    snapshots.into_iter().filter_map(|read| read.ok()?).collect()
}

/// `GET /live/sales`
async fn sales(State(live): State<LiveFeed>) -> Result<Json<Value>, Problem> {
    let known = live.context()?.records.known();
    Ok(Json(sale_list(&known, default_sale(&known, &live.0.default_sale))))
}

/// `GET /live/sales/{sale}/events`, `GET /live/sale/events`
async fn events(State(live): State<LiveFeed>, named: Option<Path<String>>) -> Result<Response, Problem> {
    let context = live.context()?;
    let named = named.as_deref().map(String::as_str);
    let sale = live.choose(&context.records.known(), named).ok_or_else(no_sale)?;
    let past = live.histories().get(sale.fingerprint()).cloned().unwrap_or_default();
    let writer = |publisher| SaleWatch::new(context, sale.id().clone()).run(publisher);
    let stream = live.0.events.listen(sale.id().clone(), None, &event("history", &past), writer);
    stream.map(stream_of).ok_or_else(unavailable)
}

fn no_sale() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail("There is no such sale.")
}

/// The problem when the cluster is not reachable yet, the limit of viewers is reached, or the process shuts down.
fn unavailable() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER)
}
