//! The sales this node serves, as it sees them: read once a period, however many clients ask.

mod live;
mod outlook;
mod steal;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::limit::Limit;
use stock::sale::{EpochMs, Sale, State};
use stock::snapshot::{Snapshot, confirm_sold_out, read_levels};
use stock::store::{ListSales, ReadConfig, ReadSnapshot, ReadTime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};

pub use self::live::{LiveSale, Outcome, Unavailable};
pub use self::outlook::{Outlook, Phase, Status};
use crate::lanes::Lanes;
use crate::metrics;
use crate::settings::LaneSettings;

/// How often the list of sales and their snapshots are read: as often as coordinators publish.
const PERIOD: Duration = Duration::from_millis(100);
/// How long without a new list of sales until the node no longer calls itself ready.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// How old a snapshot gets before the node takes one of its own, for itself alone: selling and stealing must
/// not depend on a coordinator being there.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(1);
/// How often the cluster's map is read when nothing looks odd: three times as often as it has to be for barriers to hold.
const MAP_PERIOD: Duration = Duration::from_millis(400);
/// How often while a primary is in doubt: buyers wait for the one that takes over.
const MAP_PERIOD_IN_DOUBT: Duration = Duration::from_millis(100);

/// The sales this node serves. Cheap to clone.
#[derive(Clone)]
pub struct Sales {
    lanes: Arc<Lanes>,
    known: watch::Receiver<Known>,
    tasks: Arc<Tasks>,
}

/// What the last reading found.
#[derive(Clone)]
struct Known {
    sales: Arc<HashMap<SaleId, Arc<LiveSale>>>,
    /// Sales that are listed and could not be read.
    unread: Arc<HashSet<SaleId>>,
    readings: u64,
    read_at: Instant,
}

struct Tasks {
    stop: watch::Sender<bool>,
    running: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Sales {
    /// Starts reading. The first reading is under way when this returns.
    pub fn start(cluster: Arc<Cluster>, settings: LaneSettings, user_limit: Option<Limit>) -> Self {
        let lanes = Arc::new(Lanes::new(Arc::clone(&cluster), settings.clone(), user_limit));
        let nothing =
            Known { sales: Arc::default(), unread: Arc::default(), readings: 0, read_at: Instant::now() };
        let (publish, known) = watch::channel(nothing);
        let (stop, stopped) = watch::channel(false);
        let reader = Reader { cluster: Arc::clone(&cluster), lanes: Arc::clone(&lanes), settings, publish };
        let running = vec![
            tokio::spawn(until(stopped.clone(), reader.run())),
            tokio::spawn(until(stopped, watch_map(cluster, Arc::clone(&lanes)))),
        ];
        Self { lanes, known, tasks: Arc::new(Tasks { stop, running: running.into() }) }
    }

    /// The sale of this id, where there is one. A sale that was created a moment ago is waited for: until the
    /// list has been read once more from beginning to end, which takes two periods at most.
    ///
    /// # Errors
    /// When the list, or the sale, could not be read: then there may be one.
    pub async fn get(&self, id: &SaleId) -> Result<Option<Arc<LiveSale>>, Unavailable> {
        let readings = {
            let known = self.known.borrow();
            if let Some(sale) = known.sales.get(id) {
                return Ok(Some(Arc::clone(sale)));
            }
            known.readings
        };
        let mut known = self.known.clone();
        let listed = known.wait_for(|now| now.sales.contains_key(id) || now.readings >= readings + 2);
        let listed = timeout(3 * PERIOD, listed).await.map_err(|_| Unavailable)?.map_err(|_| Unavailable)?;
        if listed.unread.contains(id) {
            return Err(Unavailable);
        }
        Ok(listed.sales.get(id).map(Arc::clone))
    }

    /// Whether the node is able to sell; else why not.
    pub fn ready(&self) -> Result<(), String> {
        let known = self.known.borrow();
        match known.read_at.elapsed() {
            _ if known.readings == 0 => Err("the list of sales has not been read yet".into()),
            age if age > READY_WITHIN => Err(format!("no answer from Redis for {} s", age.as_secs())),
            _ => Ok(()),
        }
    }

    /// Shows lanes and sales as they are now, for those who ask for metrics.
    pub fn show(&self) {
        self.lanes.look(metrics::show_lane);
        for (id, sale) in &*self.known.borrow().sales {
            metrics::show_snapshot_age(id, sale.outlook().snapshot_age());
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

async fn until(mut stopped: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

/// Keeps the cluster's map fresh: every period, and at once when a lane met something that it does not explain.
async fn watch_map(cluster: Arc<Cluster>, lanes: Arc<Lanes>) {
    loop {
        let period = if lanes.any_in_doubt() { MAP_PERIOD_IN_DOUBT } else { MAP_PERIOD };
        let _suspicion_or_period = timeout(period, lanes.suspicion.notified()).await;
        match cluster.refresh().await {
            Ok(()) => lanes.close_deposed(),
            Err(error) => tracing::warn!(error = %error, "the cluster's map could not be read"),
        }
        // However many lanes are suspicious, the map is read at most ten times a second.
        tokio::time::sleep(MAP_PERIOD_IN_DOUBT).await;
    }
}

/// Reads the list of sales, and of each sale its config when it changed and its snapshot.
struct Reader {
    cluster: Arc<Cluster>,
    lanes: Arc<Lanes>,
    settings: LaneSettings,
    publish: watch::Sender<Known>,
}

impl Reader {
    async fn run(self) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            period.tick().await;
            match self.read().await {
                Ok(()) => failing = false,
                Err(error) if failing => tracing::debug!(error = %error, "the sales still cannot be read"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(error = %error, "the sales cannot be read");
                }
            }
        }
    }

    async fn read(&self) -> Result<(), CallError> {
        let clock = Clock::read(&self.cluster).await?;
        let ids = self.cluster.read(ListSales).await?;
        let ids = ids.ok_or_else(|| CallError::Malformed("the list of sales is lost".into()))?;
        let keys: Vec<SaleKeys> = ids.iter().map(SaleKeys::new).collect();
        let snapshots = self.cluster.read_all(&keys.iter().map(ReadSnapshot).collect::<Vec<_>>()).await;

        let before = Arc::clone(&self.publish.borrow().sales);
        let (mut sales, mut unread) = (HashMap::new(), HashSet::new());
        for ((id, keys), snapshot) in ids.into_iter().zip(&keys).zip(snapshots) {
            let live = before.get(&id);
            let read = match snapshot {
                Ok(snapshot) => self.read_sale(live, keys, snapshot, clock).await,
                Err(error) => Err(error),
            };
            // A sale that cannot be read is shown as it was; the others go on.
            let sale = read.unwrap_or_else(|error| {
                tracing::debug!(sale.id = %id, error = %error, "a sale could not be read");
                unread.insert(id.clone());
                live.cloned()
            });
            sales.extend(sale.map(|sale| (id, sale)));
        }
        self.publish.send_modify(|known| {
            *known = Known {
                sales: Arc::new(sales),
                unread: Arc::new(unread),
                readings: known.readings + 1,
                read_at: Instant::now(),
            };
        });
        Ok(())
    }

    /// The sale as it is now; `None` where there is none, or none that is ready to sell.
    async fn read_sale(
        &self,
        live: Option<&Arc<LiveSale>>,
        keys: &SaleKeys,
        snapshot: Option<Snapshot>,
        clock: Clock,
    ) -> Result<Option<Arc<LiveSale>>, CallError> {
        let seen = live.map(|live| live.outlook());
        let is_current =
            |seen: &Outlook| snapshot.as_ref().is_some_and(|s| s.version == seen.sale.config.version);
        let sale = match &seen {
            Some(seen) if is_current(seen) => Some(seen.sale.clone()),
            seen => self.read_config(keys, seen.as_ref().map(|seen| &seen.sale)).await?,
        };
        let Some(sale) = sale else { return Ok(None) };
        match (live, seen) {
            (Some(live), Some(seen)) if sale.has_layout_of(&seen.sale) => {
                live.see(self.complete(seen.next(sale, snapshot, clock), clock).await);
                Ok(Some(Arc::clone(live)))
            }
            _ => Ok(Some(LiveSale::start(
                Outlook::new(sale, snapshot, clock),
                Arc::clone(&self.lanes),
                &self.settings,
            ))),
        }
    }

    /// Adds a snapshot of the node's own where coordinators have not published one for too long.
    async fn complete(&self, outlook: Outlook, clock: Clock) -> Outlook {
        if outlook.snapshot_age() < SNAPSHOT_AGE_MAX {
            return outlook;
        }
        metrics::own_snapshot(outlook.sale.id());
        let levels = read_levels(&self.cluster, &outlook.sale).await;
        let mut snapshot = Snapshot::of(&outlook.sale, &levels, outlook.snapshot.as_ref());
        if snapshot.is_to_be_confirmed() {
            snapshot.sold_out = confirm_sold_out(&self.cluster, &outlook.sale).await;
        }
        outlook.next(outlook.sale.clone(), Some(snapshot), clock)
    }

    /// The config, unless the sale is not there or not ready to sell.
    async fn read_config(&self, keys: &SaleKeys, known: Option<&Sale>) -> Result<Option<Sale>, CallError> {
        let config =
            self.cluster.read(ReadConfig(keys)).await?.filter(|config| config.state != State::Creating);
        let sale = config
            .map(|config| known.map_or_else(|| Sale::new(config.clone()), |known| known.at(config.clone())));
        sale.transpose().map_err(|error| CallError::Malformed(error.to_string()))
    }
}

/// How far Redis' clock is ahead of this machine's: nobody's own clock decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    ahead_ms: i64,
}

impl Clock {
    /// Takes the middle of the request for the moment of the answer.
    async fn read(cluster: &Cluster) -> Result<Self, CallError> {
        let asked = local_ms();
        let redis = cluster.read(ReadTime).await?;
        let middle = asked.midpoint(local_ms());
        Ok(Self { ahead_ms: redis as i64 - middle as i64 })
    }

    fn now(self) -> EpochMs {
        local_ms().saturating_add_signed(self.ahead_ms)
    }
}

fn local_ms() -> EpochMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is not set before 1970").as_millis() as EpochMs
}
