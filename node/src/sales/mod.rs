//! The sales this node serves, as it sees them: read once a period, however many clients ask.

mod clock;
mod live;
mod reader;
mod steal;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stock::cluster::Cluster;
use stock::ids::SaleId;
use stock::limit::Limit;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use self::live::{LiveSale, Outcome, Unavailable};
use self::reader::Reader;
pub use self::view::{Phase, SaleView, Status};
use crate::lanes::Lanes;
use crate::metrics;
use crate::settings::LaneSettings;

/// How often the list of sales, their records and their snapshots are read: as often as coordinators publish.
const PERIOD: Duration = Duration::from_millis(100);
/// How long without an answer of any primary until the node no longer calls itself ready.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// How often the cluster's map is read when nothing looks odd: three times as often as it has to be for barriers to hold.
const MAP_PERIOD: Duration = Duration::from_millis(400);
/// How often while a primary is in doubt: buyers wait for the one that takes over.
const MAP_PERIOD_SUSPECT: Duration = Duration::from_millis(100);

/// The sales this node serves. Cheap to clone.
#[derive(Clone)]
pub struct Sales {
    lanes: Arc<Lanes>,
    known: watch::Receiver<KnownSales>,
    tasks: Arc<Tasks>,
}

/// What the last reading found.
#[derive(Clone)]
struct KnownSales {
    sales: Arc<HashMap<SaleId, Arc<LiveSale>>>,
    /// Sales that are known or listed and could not be read.
    unreadable: Arc<HashSet<SaleId>>,
    /// How often the whole list was read.
    reads: u64,
    /// When any primary last answered.
    answered_at: Instant,
}

struct Tasks {
    stop: watch::Sender<bool>,
    running: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Sales {
    /// Starts reading. The first reading is under way when this returns.
    pub fn start(cluster: Arc<Cluster>, settings: LaneSettings, user_limit: Option<Limit>) -> Self {
        let lanes = Arc::new(Lanes::new(Arc::clone(&cluster), settings.clone(), user_limit));
        let initial = KnownSales {
            sales: Arc::default(),
            unreadable: Arc::default(),
            reads: 0,
            answered_at: Instant::now(),
        };
        let (publish, known) = watch::channel(initial);
        let (stop, stopped) = watch::channel(false);
        let reader = Reader::new(Arc::clone(&cluster), Arc::clone(&lanes), settings, publish);
        let running = vec![
            tokio::spawn(run_until_stopped(stopped.clone(), reader.run())),
            tokio::spawn(run_until_stopped(stopped, watch_map(cluster, Arc::clone(&lanes)))),
        ];
        Self { lanes, known, tasks: Arc::new(Tasks { stop, running: running.into() }) }
    }

    /// The sale of this id, where there is one. A sale that was created a moment ago is waited for: until the
    /// list has been read once more from beginning to end, which takes two periods at most.
    ///
    /// # Errors
    /// When the list, or the sale, could not be read or was lost: then there may be one.
    pub async fn get(&self, id: &SaleId) -> Result<Option<Arc<LiveSale>>, Unavailable> {
        let reads = {
            let known = self.known.borrow();
            if let Some(sale) = known.sales.get(id) {
                return Ok(Some(Arc::clone(sale)));
            }
            known.reads
        };
        let mut known = self.known.clone();
        let listed = known.wait_for(|now| now.sales.contains_key(id) || now.reads >= reads + 2);
        let listed = timeout(3 * PERIOD, listed).await.map_err(|_| Unavailable)?.map_err(|_| Unavailable)?;
        if listed.unreadable.contains(id) {
            return Err(Unavailable);
        }
        Ok(listed.sales.get(id).map(Arc::clone))
    }

    /// Whether the node is able to sell; else why not.
    pub fn ready(&self) -> Result<(), String> {
        let known = self.known.borrow();
        match known.answered_at.elapsed() {
            _ if known.reads == 0 => Err("the list of sales has not been read yet".into()),
            age if age > READY_WITHIN => Err(format!("no answer from Redis for {} s", age.as_secs())),
            _ => Ok(()),
        }
    }

    /// Shows lanes and sales as they are now, for those who ask for metrics.
    pub fn update_gauges(&self) {
        self.lanes.for_each_lane(metrics::set_lane);
        for (id, sale) in &*self.known.borrow().sales {
            metrics::set_snapshot_age(id, sale.view().snapshot_age());
        }
    }

    /// Stops reading and closes the lanes once everybody in them has been answered.
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

/// Keeps the cluster's map fresh: every period, and at once when a lane met something that it does not explain.
async fn watch_map(cluster: Arc<Cluster>, lanes: Arc<Lanes>) {
    loop {
        let period = if lanes.any_suspect() { MAP_PERIOD_SUSPECT } else { MAP_PERIOD };
        let _suspicion_or_period = timeout(period, lanes.map_refresh.notified()).await;
        match cluster.refresh().await {
            Ok(()) => lanes.close_demoted(),
            Err(error) => tracing::warn!(error = %error, "the cluster's map could not be read"),
        }
        // However many lanes are suspicious, the map is read at most ten times a second.
        tokio::time::sleep(MAP_PERIOD_SUSPECT).await;
    }
}
