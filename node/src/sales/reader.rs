//! Reads the record and snapshot of each sale once every period, except of sales at rest: those are read while requests
//! ask for them, and forgotten afterwards.
//!
//! Parts fail independently. Without the list, known sales go on. A sale whose record or snapshot cannot be read keeps
//! its last view, and the node reads the levels of its shards itself. Each part is polled once a period with a short
//! timeout, so an unreachable primary delays the others by no more than that. Channels that two such readings in a row
//! find stalled are re-driven, as a leader would.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rediscluster::{Call, CallError, Cluster};
use stock::active::ListActiveSales;
use stock::calls::{Level, ReadLevel, parse_config};
use stock::channels::OpenChannels;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::{Sale, SaleState};
use stock::snapshot::{Snapshot, confirm_sold_out};
use stock::store::{ListSales, ReadText, parse_snapshot};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::clock::Clocks;
use super::live::LiveSale;
use super::redrive::{Redrives, StalledChannel};
use super::view::SaleView;
use super::{AskedFor, KnownSales, PERIOD};
use crate::lanes::Lanes;
use crate::metrics;
use crate::settings::LaneSettings;

/// Longest wait for one answer. The next period polls again.
const POLL_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest wait for the barriers that confirm "sold out".
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// Age of a snapshot after which the node takes its own, for itself only. Selling and stealing must not depend on a
/// running coordinator.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(1);
/// Time between two reads of the list of all sales, while nothing asks for more. A new sale is found in the set of active
/// ones.
const LIST_PERIOD: Duration = Duration::from_secs(1);
/// How long a sale at rest is followed after a request. Clients that poll a status do so every few seconds.
const USED_FOR: Duration = Duration::from_secs(10);
/// How long a request can wait for a sale that does not exist.
const ASKED_FOR: Duration = Duration::from_millis(300);

pub(super) struct Reader {
    cluster: Arc<Cluster>,
    lanes: Arc<Lanes>,
    settings: LaneSettings,
    clocks: Arc<Clocks>,
    publish: watch::Sender<KnownSales>,
    seen: HashMap<SaleId, Seen>,
    asked_for: Arc<AskedFor>,
    /// When each sale was last used that is at rest, or not served.
    used_at: HashMap<SaleId, Instant>,
    /// The list of all sales, as it was read last.
    listed: Vec<SaleId>,
    listed_at: Option<Instant>,
    active: Option<Arc<BTreeSet<SaleId>>>,
    redrives: Redrives,
    /// Why the list could not be used in the latest read.
    list_problem: Option<String>,
}

/// Results of earlier reads of a sale.
#[derive(Clone, Default)]
struct Seen {
    /// The latest texts that have been applied.
    texts: StoredTexts,
    /// The open channels in the node's own snapshots.
    channels: OpenChannels,
}

/// Record and snapshot of a sale, as stored in Redis.
#[derive(Clone, Default)]
struct StoredTexts {
    config: Option<String>,
    snapshot: Option<String>,
}

/// Result of reading one sale.
struct SaleReading {
    live: Option<Arc<LiveSale>>,
    seen: Seen,
    stalled: Vec<StalledChannel>,
    problem: Option<CallError>,
}

impl Reader {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        lanes: Arc<Lanes>,
        settings: LaneSettings,
        publish: watch::Sender<KnownSales>,
        asked_for: Arc<AskedFor>,
    ) -> Self {
        let redrives = Redrives::new(Arc::clone(&lanes));
        Self {
            cluster,
            lanes,
            settings,
            clocks: Arc::default(),
            publish,
            seen: HashMap::new(),
            asked_for,
            used_at: HashMap::new(),
            listed: Vec::new(),
            listed_at: None,
            active: None,
            redrives,
            list_problem: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let (active, any_answered) =
            tokio::join!(self.poll(ListActiveSales), self.clocks.measure(&self.cluster, POLL_TIMEOUT));
        if let Ok(active) = active {
            self.active = active.map(Arc::new);
        }
        let before = Arc::clone(&self.publish.borrow().sales);
        let was_listed = self.is_list_due(&before) && self.read_list().await;
        let ids = self.ids_to_read(&before);
        let reads = join_all(ids.iter().map(|id| self.read_sale(id, before.get(id)))).await;

        let (mut sales, mut unreadable, mut stalled) = (HashMap::new(), HashSet::new(), Vec::new());
        let mut seen = HashMap::new();
        for (id, reading) in ids.into_iter().zip(reads) {
            if let Some(problem) = reading.problem {
                tracing::debug!(sale.id = %id, error = %problem, "a sale could not be read");
                unreadable.insert(id.clone());
            }
            seen.insert(id.clone(), reading.seen);
            stalled.extend(reading.stalled);
            sales.extend(reading.live.map(|live| (id, live)));
        }
        self.seen = seen;
        self.redrives.start(stalled);
        self.publish.send_modify(|known| {
            known.sales = Arc::new(sales);
            known.unreadable = Arc::new(unreadable);
            known.active = self.active.clone();
            known.reads += u64::from(was_listed);
            known.answered_at = if any_answered { Instant::now() } else { known.answered_at };
        });
    }

    /// Notes which sales are used. Returns true if the list of all sales must be read: a request waits for a sale that is not
    /// served, or it is time.
    fn is_list_due(&mut self, before: &HashMap<SaleId, Arc<LiveSale>>) -> bool {
        let now = Instant::now();
        let used = before.iter().filter(|(_, sale)| sale.take_use()).map(|(id, _)| id.clone());
        self.used_at.extend(used.chain(self.asked_for.take()).map(|id| (id, now)));
        let is_in_use = |id: &SaleId, used_at: &mut Instant| {
            now - *used_at < if before.contains_key(id) { USED_FOR } else { ASKED_FOR }
        };
        self.used_at.retain(is_in_use);
        self.active.is_none()
            || self.listed_at.is_none_or(|at| now - at >= LIST_PERIOD)
            || self.used_at.keys().any(|id| !before.contains_key(id))
    }

    /// Reads the list of all sales. Returns true if it is complete.
    async fn read_list(&mut self) -> bool {
        let listed = self.poll(ListSales).await;
        let listed = self.check_list(listed);
        let is_complete = listed.is_some();
        if let Some(listed) = listed {
            self.listed_at = Some(Instant::now());
            self.listed = listed;
        }
        is_complete
    }

    /// Returns the sales that are active or used. Without the set of active sales, all sales are.
    fn ids_to_read(&self, before: &HashMap<SaleId, Arc<LiveSale>>) -> BTreeSet<SaleId> {
        let Some(active) = &self.active else {
            return self.listed.iter().chain(before.keys()).cloned().collect();
        };
        let used = self.used_at.keys().filter(|id| before.contains_key(*id) || self.listed.contains(*id));
        let not_over = before.iter().filter(|(_, sale)| !sale.view().is_over()).map(|(id, _)| id);
        active.iter().chain(used).chain(not_over).cloned().collect()
    }

    /// Returns the list if it is complete. Logs when that changes.
    fn check_list(&mut self, listed: Result<Option<Vec<SaleId>>, CallError>) -> Option<Vec<SaleId>> {
        let (listed, problem) = match listed {
            Ok(Some(listed)) => (Some(listed), None),
            Ok(None) => (None, Some("it was lost, or no coordinator has made it yet".to_owned())),
            Err(error) => (None, Some(error.to_string())),
        };
        match &problem {
            Some(problem) if self.list_problem.is_none() => {
                tracing::warn!(error = %problem, "the list of sales cannot be read; known sales go on");
            }
            None if self.list_problem.is_some() => tracing::info!("the list of sales is read again"),
            _ => {}
        }
        self.list_problem = problem;
        listed
    }

    /// Reads one sale. Parts that cannot be read keep their last state.
    async fn read_sale(&self, id: &SaleId, live: Option<&Arc<LiveSale>>) -> SaleReading {
        let mut seen = self.seen.get(id).cloned().unwrap_or_default();
        let known = live.map(|live| live.view());
        if let Some(live) = live.filter(|live| live.config().is_removed()) {
            return SaleReading { live: Some(Arc::clone(live)), seen, stalled: Vec::new(), problem: None };
        }
        let asked_at = Instant::now();
        let (read, problem) = match self.read_texts(&SaleKeys::new(id)).await {
            Ok(texts) => self.apply_texts(known.as_deref(), texts, &mut seen.texts),
            Err(error) => (known.as_deref().cloned(), Some(error)),
        };
        let Some(view) = read else {
            return SaleReading { live: None, seen, stalled: Vec::new(), problem };
        };
        let view = if problem.is_none() { view.read_at(asked_at) } else { view };
        let is_active = self.active.as_ref().is_none_or(|active| active.contains(id)) || !view.is_over();
        // The snapshot of a sale at rest is the last one, unless a coordinator that was frozen has published an older one.
        let needs_own = if is_active { view.snapshot_age() >= SNAPSHOT_AGE_MAX } else { live.is_none() };
        let (view, stalled) = if needs_own {
            self.with_own_snapshot(view, &mut seen.channels).await
        } else {
            (view, Vec::new())
        };
        let live = match (live, known) {
            (Some(live), Some(known)) if view.sale.has_same_layout_as(&known.sale) => {
                live.update(view);
                Arc::clone(live)
            }
            _ => LiveSale::start(view, Arc::clone(&self.lanes), &self.settings),
        };
        SaleReading { live: Some(live), seen, stalled, problem }
    }

    async fn read_texts(&self, keys: &SaleKeys) -> Result<StoredTexts, CallError> {
        let text = |key| self.poll(ReadText { slot: keys.slot, key });
        let (config, snapshot) = tokio::join!(text(&keys.config), text(&keys.snapshot));
        Ok(StoredTexts { config: config?, snapshot: snapshot? })
    }

    /// Returns the view after applying these texts, or `None` while the sale is not ready to sell. Texts that were
    /// applied are stored in `texts_seen`.
    fn apply_texts(
        &self,
        known: Option<&SaleView>,
        texts: StoredTexts,
        texts_seen: &mut StoredTexts,
    ) -> (Option<SaleView>, Option<CallError>) {
        let (mut view, mut problem) = (known.cloned(), None);
        if known.is_none() || texts.config != texts_seen.config {
            match sale_of(texts.config.as_deref(), known.map(|known| &known.sale)) {
                Ok(Some(sale)) => {
                    let same = known.filter(|known| sale.has_same_layout_as(&known.sale));
                    // A sale with another layout has not seen a snapshot yet.
                    *texts_seen =
                        StoredTexts { config: texts.config, snapshot: same.and(texts_seen.snapshot.take()) };
                    view = Some(match same {
                        Some(known) => known.with_sale(sale),
                        None => SaleView::new(sale, Arc::clone(&self.clocks)),
                    });
                }
                Ok(None) => {}
                Err(error) => problem = Some(error),
            }
        }
        let new_snapshot = texts.snapshot.filter(|text| texts_seen.snapshot.as_ref() != Some(text));
        if let (Some(known), Some(text)) = (&view, new_snapshot) {
            match parse_snapshot(&text) {
                Ok(snapshot) => {
                    view = Some(known.with_snapshot(snapshot));
                    texts_seen.snapshot = Some(text);
                }
                Err(error) => problem = Some(error),
            }
        }
        (view, problem)
    }

    /// Adds a snapshot of the node's own. Also returns the channels that no tokens have left since the node's own
    /// snapshot before.
    async fn with_own_snapshot(
        &self,
        view: SaleView,
        channels: &mut OpenChannels,
    ) -> (SaleView, Vec<StalledChannel>) {
        if view.is_archived() {
            return (view, Vec::new());
        }
        let polls = view.sale.shards().iter().map(|shard| self.poll(ReadLevel { shard }));
        let levels: Vec<Result<Level, CallError>> = join_all(polls).await;
        if levels.iter().all(Result::is_err) {
            return (view, Vec::new());
        }
        let now = Instant::now();
        channels.observe(&levels, now);
        let stalled = channels.stalled_for(SNAPSHOT_AGE_MAX, now).into_iter();
        let stalled = stalled.map(|channel| StalledChannel { sale: view.sale.clone(), channel }).collect();
        metrics::count_own_snapshot(view.sale.id());
        levels.iter().flatten().for_each(|level| view.saw_version(level.settings.version));
        let mut snapshot = Snapshot::of(&view.sale, &levels, view.snapshot.as_ref());
        snapshot.sold_out |= view.sold_out();
        if snapshot.needs_confirmation() && levels.iter().all(Result::is_ok) {
            let confirming = confirm_sold_out(&self.cluster, &view.sale);
            snapshot.sold_out = timeout(CONFIRM_TIMEOUT, confirming).await.unwrap_or(false);
        }
        (view.with_snapshot(snapshot), stalled)
    }

    /// Makes one call once, with a short timeout. The next period repeats it anyway.
    async fn poll<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        let polling = timeout(POLL_TIMEOUT, self.cluster.poll(call)).await;
        let answer = polling.unwrap_or_else(|_| Err(CallError::NoReply("none in time".into())));
        if matches!(answer, Err(CallError::Moved(_))) {
            self.lanes.map_refresh.notify_one();
        }
        answer
    }
}

/// Parses the sale's record. Returns `None` while the sale is not ready to sell.
fn sale_of(config: Option<&str>, known: Option<&Sale>) -> Result<Option<Sale>, CallError> {
    let config = config.ok_or_else(|| CallError::Malformed("the sale has no record".into()))?;
    let config = parse_config(config)?;
    if config.state == SaleState::Creating {
        return Ok(None);
    }
    let sale = match known {
        Some(known) => known.at(config),
        None => Sale::new(config),
    };
    sale.map(Some).map_err(|error| CallError::Malformed(error.to_string()))
}
