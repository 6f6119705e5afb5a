//! Reads the list of sales, and of each sale its record and its snapshot, every period.
//!
//! Each part fails by itself. Without the list the sales that are known go on; a sale whose record or snapshot cannot be
//! read keeps what is known of it, and the node looks at its shards itself. One poll a period and part, each with a
//! short limit: a primary that is away delays the others by no more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stock::calls::{Call, CallError, Level, ReadLevel};
use stock::cluster::Cluster;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::{Sale, SaleState};
use stock::snapshot::{Snapshot, confirm_sold_out};
use stock::store::{ListSales, ReadText, parse_config, parse_snapshot};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::clock::Clocks;
use super::live::LiveSale;
use super::view::SaleView;
use super::{KnownSales, PERIOD};
use crate::lanes::Lanes;
use crate::metrics;
use crate::settings::LaneSettings;

/// Longest wait for one answer. A primary that does not answer by then is asked again in the next period.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest wait for the barriers behind "sold out".
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// How old a snapshot gets before the node takes one of its own, for itself alone: selling and stealing must
/// not depend on a coordinator being there.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    cluster: Arc<Cluster>,
    lanes: Arc<Lanes>,
    settings: LaneSettings,
    clocks: Arc<Clocks>,
    publish: watch::Sender<KnownSales>,
    /// What was last read of each sale, as it was stored.
    seen: HashMap<SaleId, StoredTexts>,
    /// Why the list could not be used the last time.
    list_trouble: Option<String>,
}

/// A sale's record and its snapshot, as they are stored.
#[derive(Clone, Default)]
struct StoredTexts {
    config: Option<String>,
    snapshot: Option<String>,
}

/// What one reading found of a sale.
struct SaleReading {
    live: Option<Arc<LiveSale>>,
    seen: StoredTexts,
    trouble: Option<CallError>,
}

impl Reader {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        lanes: Arc<Lanes>,
        settings: LaneSettings,
        publish: watch::Sender<KnownSales>,
    ) -> Self {
        let (clocks, seen) = (Arc::default(), HashMap::new());
        Self { cluster, lanes, settings, clocks, publish, seen, list_trouble: None }
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
        let (listed, any_answered) =
            tokio::join!(self.look(ListSales), self.clocks.measure(&self.cluster, LOOK_TIMEOUT));
        let listed = self.usable(listed);
        let before = Arc::clone(&self.publish.borrow().sales);
        let ids: BTreeSet<&SaleId> = listed.iter().flatten().chain(before.keys()).collect();
        let readings = join_all(ids.iter().map(|id| self.read_sale(id, before.get(*id)))).await;

        let (mut sales, mut unread) = (HashMap::new(), HashSet::new());
        for (id, reading) in ids.into_iter().cloned().zip(readings) {
            if let Some(trouble) = reading.trouble {
                tracing::debug!(sale.id = %id, error = %trouble, "a sale could not be read");
                unread.insert(id.clone());
            }
            self.seen.insert(id.clone(), reading.seen);
            sales.extend(reading.live.map(|live| (id, live)));
        }
        self.publish.send_modify(|known| {
            known.sales = Arc::new(sales);
            known.unread = Arc::new(unread);
            known.readings += u64::from(listed.is_some());
            known.heard_at = if any_answered { Instant::now() } else { known.heard_at };
        });
    }

    /// The list where it is whole. Says in the log when it is not any more.
    fn usable(&mut self, listed: Result<Option<Vec<SaleId>>, CallError>) -> Option<Vec<SaleId>> {
        let (listed, trouble) = match listed {
            Ok(Some(listed)) => (Some(listed), None),
            Ok(None) => (None, Some("it was lost, or no coordinator has made it yet".to_owned())),
            Err(error) => (None, Some(error.to_string())),
        };
        match &trouble {
            Some(trouble) if self.list_trouble.is_none() => {
                tracing::warn!(error = %trouble, "the list of sales cannot be read; known sales go on");
            }
            None if self.list_trouble.is_some() => tracing::info!("the list of sales is read again"),
            _ => {}
        }
        self.list_trouble = trouble;
        listed
    }

    /// The sale as it is now. What cannot be read stays as it was.
    async fn read_sale(&self, id: &SaleId, live: Option<&Arc<LiveSale>>) -> SaleReading {
        let mut seen = self.seen.get(id).cloned().unwrap_or_default();
        let known = live.map(|live| live.outlook());
        let (read, trouble) = match self.read_texts(&SaleKeys::new(id)).await {
            Ok(texts) => self.take_in(known.as_deref(), texts, &mut seen),
            Err(error) => (known.as_deref().cloned(), Some(error)),
        };
        let Some(outlook) = read else { return SaleReading { live: None, seen, trouble } };
        let outlook = self.complete(outlook).await;
        let live = match (live, known) {
            (Some(live), Some(known)) if outlook.sale.has_layout_of(&known.sale) => {
                live.see(outlook);
                Arc::clone(live)
            }
            _ => LiveSale::start(outlook, Arc::clone(&self.lanes), &self.settings),
        };
        SaleReading { live: Some(live), seen, trouble }
    }

    async fn read_texts(&self, keys: &SaleKeys) -> Result<StoredTexts, CallError> {
        let text = |key| self.look(ReadText { slot: keys.slot, key });
        let (config, snapshot) = tokio::join!(text(&keys.config), text(&keys.snapshot));
        Ok(StoredTexts { config: config?, snapshot: snapshot? })
    }

    /// What is known after these texts; none where there is no sale that is ready to sell. What has become known is `seen`.
    fn take_in(
        &self,
        known: Option<&SaleView>,
        texts: StoredTexts,
        seen: &mut StoredTexts,
    ) -> (Option<SaleView>, Option<CallError>) {
        let (mut outlook, mut trouble) = (known.cloned(), None);
        if known.is_none() || texts.config != seen.config {
            match sale_of(texts.config.as_deref(), known.map(|known| &known.sale)) {
                Ok(Some(sale)) => {
                    let same = known.filter(|known| sale.has_layout_of(&known.sale));
                    // Of a sale with other shards no snapshot was seen yet.
                    *seen = StoredTexts { config: texts.config, snapshot: same.and(seen.snapshot.take()) };
                    outlook = Some(match same {
                        Some(known) => known.with_sale(sale),
                        None => SaleView::new(sale, Arc::clone(&self.clocks)),
                    });
                }
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
        }
        let fresh = texts.snapshot.filter(|text| seen.snapshot.as_ref() != Some(text));
        if let (Some(known), Some(text)) = (&outlook, fresh) {
            match parse_snapshot(&text) {
                Ok(snapshot) => {
                    outlook = Some(known.with_snapshot(snapshot));
                    seen.snapshot = Some(text);
                }
                Err(error) => trouble = Some(error),
            }
        }
        (outlook, trouble)
    }

    /// Adds a snapshot of the node's own where no other has come for too long.
    async fn complete(&self, outlook: SaleView) -> SaleView {
        if outlook.snapshot_age() < SNAPSHOT_AGE_MAX {
            return outlook;
        }
        let looks = outlook.sale.shards().iter().map(|shard| self.look(ReadLevel { shard }));
        let levels: Vec<Result<Level, CallError>> = join_all(looks).await;
        if levels.iter().all(Result::is_err) {
            return outlook;
        }
        metrics::own_snapshot(outlook.sale.id());
        let mut snapshot = Snapshot::of(&outlook.sale, &levels, outlook.snapshot.as_ref());
        snapshot.sold_out |= outlook.sold_out();
        if snapshot.is_to_be_confirmed() && levels.iter().all(Result::is_ok) {
            let confirming = confirm_sold_out(&self.cluster, &outlook.sale);
            snapshot.sold_out = timeout(CONFIRM_TIMEOUT, confirming).await.unwrap_or(false);
        }
        outlook.with_snapshot(snapshot)
    }

    /// Makes one call, once, for a short time: it is made again in the next period anyway.
    async fn look<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        let looking = timeout(LOOK_TIMEOUT, self.cluster.poll(call)).await;
        let answer = looking.unwrap_or_else(|_| Err(CallError::NoReply("none in time".into())));
        if matches!(answer, Err(CallError::Moved(_))) {
            self.lanes.suspicion.notify_one();
        }
        answer
    }
}

/// The sale by the text of its record; `None` where it is not ready to sell.
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
