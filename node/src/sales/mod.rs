//! The sales that this node serves. They are read from Redis once a period, independent of the number of clients. A sale at
//! rest, which is over and not active, is read only while requests ask for it.

mod clock;
mod live;
mod reader;
mod redrive;
mod steal;
mod view;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rediscluster::{Cluster, Primary};
use stock::ids::SaleId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use self::live::{LiveSale, LookupError, Outcome, Unavailable};
use self::reader::Reader;
pub use self::view::{Phase, SaleView, Status};
use crate::lanes::Lanes;
use crate::metrics;
use crate::settings::LaneSettings;

/// How often the list of sales, their records and their snapshots are read. Coordinators publish at the same rate.
const PERIOD: Duration = Duration::from_millis(100);
/// Time without an answer from any primary after which the node is no longer ready.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// How often the cluster map is read while all primaries are healthy: three times as often as barriers need it.
const MAP_PERIOD: Duration = Duration::from_millis(400);
/// How often the map is read while a primary is suspect, because its buyers wait for the new primary.
const MAP_PERIOD_SUSPECT: Duration = Duration::from_millis(100);

/// The sales that this node serves. Cheap to clone.
#[derive(Clone)]
pub struct Sales {
    lanes: Arc<Lanes>,
    known: watch::Receiver<KnownSales>,
    asked_for: Arc<AskedFor>,
    tasks: Arc<Tasks>,
}

/// Sales that requests have asked for, and that this node does not serve now.
#[derive(Default)]
struct AskedFor(Mutex<HashSet<SaleId>>);

impl AskedFor {
    fn add(&self, id: &SaleId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    fn take(&self) -> HashSet<SaleId> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Result of the latest read.
#[derive(Clone)]
struct KnownSales {
    sales: Arc<HashMap<SaleId, Arc<LiveSale>>>,
    /// Sales that are known or listed but could not be read.
    unreadable: Arc<HashSet<SaleId>>,
    /// The active sales. `None` while the set is lost, or was not read yet.
    active: Option<Arc<BTreeSet<SaleId>>>,
    /// Number of times that the complete list was read.
    reads: u64,
    /// Time of the latest answer from any primary.
    answered_at: Instant,
}

impl KnownSales {
    /// Returns true if the sale is over and not active: nothing happens to it until an operator changes it.
    fn is_at_rest(&self, id: &SaleId, sale: &LiveSale) -> bool {
        self.active.as_ref().is_some_and(|active| !active.contains(id)) && sale.view().is_over()
    }
}

struct Tasks {
    stop: watch::Sender<bool>,
    running: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Sales {
    /// Starts the background tasks. The first read is in flight when this returns.
    pub fn start(cluster: Arc<Cluster>, settings: LaneSettings) -> Self {
        let lanes = Arc::new(Lanes::new(Arc::clone(&cluster), settings.clone()));
        let initial = KnownSales {
            sales: Arc::default(),
            unreadable: Arc::default(),
            active: None,
            reads: 0,
            answered_at: Instant::now(),
        };
        let (publish, known) = watch::channel(initial);
        let (stop, stopped) = watch::channel(false);
        let asked_for = Arc::<AskedFor>::default();
        let reader =
            Reader::new(Arc::clone(&cluster), Arc::clone(&lanes), settings, publish, Arc::clone(&asked_for));
        let running = vec![
            tokio::spawn(run_until_stopped(stopped.clone(), reader.run())),
            tokio::spawn(run_until_stopped(stopped, watch_map(cluster, Arc::clone(&lanes)))),
        ];
        Self { lanes, known, asked_for, tasks: Arc::new(Tasks { stop, running: running.into() }) }
    }

    /// Returns the sale with this id, if it exists. When the node does not serve the sale, waits until the whole list has been
    /// read once more, because the sale may be at rest, or have just been created. That takes two periods at most.
    ///
    /// # Errors
    /// Returns [`Unavailable`] when the list or the sale could not be read or was lost. The sale may exist then.
    pub async fn get(&self, id: &SaleId) -> Result<Option<Arc<LiveSale>>, Unavailable> {
        let reads = {
            let known = self.known.borrow();
            if let Some(sale) = known.sales.get(id) {
                sale.ask();
                return Ok(Some(Arc::clone(sale)));
            }
            known.reads
        };
        self.asked_for.add(id);
        let mut known = self.known.clone();
        let listed = known.wait_for(|now| now.sales.contains_key(id) || now.reads >= reads + 2);
        let listed = timeout(3 * PERIOD, listed).await.map_err(|_| Unavailable)?.map_err(|_| Unavailable)?;
        if listed.unreadable.contains(id) {
            return Err(Unavailable);
        }
        Ok(listed.sales.get(id).map(Arc::clone))
    }

    /// Returns `Ok` when the node is able to sell, else the reason.
    pub fn ready(&self) -> Result<(), String> {
        let known = self.known.borrow();
        match known.answered_at.elapsed() {
            _ if known.reads == 0 => Err("the list of sales has not been read yet".into()),
            age if age > READY_WITHIN => Err(format!("no answer from Redis for {} s", age.as_secs())),
            _ => Ok(()),
        }
    }

    /// Sets the gauges of lanes and sales to their current values.
    pub fn update_gauges(&self) {
        self.lanes.for_each_lane(metrics::set_lane);
        let known = self.known.borrow();
        for (id, sale) in known.sales.iter().filter(|(id, sale)| !known.is_at_rest(id, sale)) {
            metrics::set_snapshot_age(id, sale.view().snapshot_age());
        }
    }

    /// Returns true if the metrics show this sale: it is served, and not at rest.
    pub fn shows(&self, sale: &str) -> bool {
        let known = self.known.borrow();
        let served = sale.parse().ok().and_then(|id| known.sales.get_key_value(&id));
        served.is_some_and(|(id, sale)| !known.is_at_rest(id, sale))
    }

    /// Stops reading, and closes the lanes after all jobs in them have been answered.
    pub async fn stop(&self) {
        self.tasks.stop.send_replace(true);
        for task in self.tasks.running.lock().await.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(error = %error, "a background task failed");
            }
        }
        let sales = Arc::clone(&self.known.borrow().sales);
        for sale in sales.values() {
            sale.close().await;
        }
        self.lanes.close().await;
    }
}

async fn run_until_stopped(mut stopped: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

/// Keeps the cluster map fresh: reads it every period, and at once when a lane requests it.
async fn watch_map(cluster: Arc<Cluster>, lanes: Arc<Lanes>) {
    let mut failed_before = 0;
    loop {
        let period = if lanes.any_suspect() { MAP_PERIOD_SUSPECT } else { MAP_PERIOD };
        let _suspicion_or_period = timeout(period, lanes.map_refresh.notified()).await;
        match cluster.refresh().await {
            Ok(()) => {
                lanes.close_demoted();
                let failed = cluster.topology().primaries().iter().map(Primary::replicas_failed).sum();
                if std::mem::replace(&mut failed_before, failed) != failed {
                    tracing::warn!("the cluster's map shows {failed} failed replicas");
                }
            }
            Err(error) => tracing::warn!(error = %error, "the cluster's map could not be read"),
        }
        // Reads the map at most ten times a second, even when many lanes request it.
        tokio::time::sleep(MAP_PERIOD_SUSPECT).await;
    }
}
