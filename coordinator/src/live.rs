//! The live view: a page on the coordinator's own port that shows a sale as it goes, and the events that feed it.
//!
//! It is read-only and asks for no token: it tells no user ids and nothing secret. Whoever can reach this port may look.
//! Every coordinator shows the same, whether it leads or not: while somebody watches a sale, it looks at the shards
//! itself. It decides nothing, and nothing waits for it.

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
use service::edge::{self, AdmitAll};
use service::events::{EventHub, event, stream_of};
use service::problem::Problem;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::snapshot::Snapshot;
use stock::store::ReadSnapshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::CoordinatorHandle;
use crate::coordinator::Coordinator;
use crate::desired_state::DesiredState;
use history::History;
use report::LiveSaleList;
use watch::SaleWatch;

/// Who may watch at a time: some screens, and everybody who works on the sale.
const VIEWERS_MAX: usize = 200;
/// From one point of the purchases' history to the next.
const HISTORY_PERIOD: Duration = Duration::from_secs(1);
/// Longest time to the head of an answer.
const DEADLINE: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What viewers are shown. Clones share it.
#[derive(Clone)]
pub struct LiveFeed(Arc<Inner>);

struct Inner {
    handle: CoordinatorHandle,
    default_sale: SaleId,
    events: EventHub<SaleId>,
    histories: Mutex<BTreeMap<SaleId, History>>,
}

impl LiveFeed {
    /// A view of the sales of this desk's coordinator. Where no sale is named, it is of the default one.
    pub fn new(handle: CoordinatorHandle, default_sale: SaleId) -> Self {
        let (events, histories) = (EventHub::new(VIEWERS_MAX), Mutex::default());
        Self(Arc::new(Inner { handle, default_sale, events, histories }))
    }

    /// The page, and what it asks for.
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

    /// Remembers how much was sold by when, so that a viewer who comes late sees the minutes before. Never ends.
    pub async fn record_history(&self, coordinator: &Coordinator) {
        let mut ticks = interval(HISTORY_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (id, Snapshot { taken_at, sold, .. }) in read_snapshots(coordinator).await {
                self.histories().entry(id).or_default().push(taken_at, sold);
            }
        }
    }

    fn coordinator(&self) -> Result<Arc<Coordinator>, Problem> {
        self.0.handle.coordinator().ok_or_else(unavailable)
    }

    fn histories(&self) -> MutexGuard<'_, BTreeMap<SaleId, History>> {
        self.0.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sale that is meant, where there is one.
    fn choose(&self, known: &BTreeMap<SaleId, DesiredState>, named: Option<&str>) -> Option<SaleId> {
        match named {
            Some(named) => named.parse().ok().filter(|id| known.contains_key(id)),
            None => default_sale(known, &self.0.default_sale),
        }
    }
}

/// The default sale, or without one the one that began last.
fn default_sale(known: &BTreeMap<SaleId, DesiredState>, default: &SaleId) -> Option<SaleId> {
    let latest = || known.values().max_by_key(|desired| desired.sale.config.window.starts_at);
    known.get(default).or_else(latest).map(|desired| desired.sale.id().clone())
}

/// The latest snapshots. A sale whose snapshot cannot be read has a gap in its history.
async fn read_snapshots(coordinator: &Coordinator) -> Vec<(SaleId, Snapshot)> {
    let ids: Vec<SaleId> = coordinator.records.known().keys().cloned().collect();
    let keys: Vec<SaleKeys> = ids.iter().map(SaleKeys::new).collect();
    let snapshots = coordinator.reads.poll_all(&keys.iter().map(ReadSnapshot).collect::<Vec<_>>()).await;
    ids.into_iter().zip(snapshots).filter_map(|(id, read)| Some((id, read.ok()??))).collect()
}

/// `GET /live/sales`
async fn sales(State(live): State<LiveFeed>) -> Result<Json<LiveSaleList>, Problem> {
    let known = live.coordinator()?.records.known();
    Ok(Json(LiveSaleList::of(&known, default_sale(&known, &live.0.default_sale))))
}

/// `GET /live/sales/{sale}/events`, `GET /live/sale/events`
async fn events(State(live): State<LiveFeed>, named: Option<Path<String>>) -> Result<Response, Problem> {
    let coordinator = live.coordinator()?;
    let sale = live
        .choose(&coordinator.records.known(), named.as_deref().map(String::as_str))
        .ok_or_else(no_sale)?;
    let past = live.histories().get(&sale).cloned().unwrap_or_default();
    let writer = |publisher| SaleWatch::new(coordinator, sale.clone()).run(publisher);
    let stream = live.0.events.listen(sale.clone(), &event("history", &past), writer);
    stream.map(stream_of).ok_or_else(unavailable)
}

fn no_sale() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail("There is no such sale.")
}

/// There is no cluster yet, no place left, or the end is near.
fn unavailable() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER)
}
