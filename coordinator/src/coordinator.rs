//! What a coordinator does when it is asked to: create, change, show and audit sales.
//!
//! It writes what is wanted, brings the shards to it, and answers once all of them have confirmed. Whatever is
//! left undone when it dies, [`Coordinator::run`] of the next one does from what is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use service::time::now;
use stock::audit::{AuditError, AuditReport, audit};
use stock::calls::{CallError, Level, ReadLevel, RecordAnswer};
use stock::cluster::Cluster;
use stock::connection::ConnectOptions;
use stock::ids::SaleId;
use stock::layout::{SaleKeys, choose_tags};
use stock::sale::{InvalidSale, SHARDS_MAX, Sale, SaleState};
use stock::search::has_shards;
use stock::snapshot::Snapshot;
use stock::store::{AddSaleToList, ListSales, ReadSnapshot};
use stock::topology::Topology;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::apply::{UnconfirmedShard, enforce, open};
use crate::change::{Change, ChangeError};
use crate::desired_state::DesiredState;
use crate::leading::Leadership;
use crate::metrics;
use crate::new_sale::{Field, NewSale};
use crate::reconcile::Observation;
use crate::records::Records;
use crate::replication::Replication;
use crate::shard_problem::{ShardProblem, problems};

/// Shards a primary, where the request does not say: slots then move to new primaries in even steps.
const SHARDS_PER_PRIMARY: usize = 4;

/// How often a change is based on a newer version before it gives up. Each further try means that another
/// operator changed the same sale within the same few milliseconds.
const CHANGE_TRIES_MAX: u32 = 5;

/// Audits at a time. One reads every claim of a sale into memory.
const AUDITS_MAX: usize = 1;
/// Longest wait for another audit to end. One of a million claims takes some seconds.
const AUDIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// Longest wait for a reply to a look at the shards. Whoever does not answer by then is looked at again in the
/// next round, and must not hold up the others for longer.
const READ_TIMEOUT: Duration = Duration::from_millis(250);

/// How often it looks, and how patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one snapshot to the next.
    pub snapshot_period: Duration,
    /// How long a channel may stay open.
    pub redrive_after: Duration,
    /// From one rebalancing to the next; none without it.
    pub rebalance_period: Option<Duration>,
    /// How long it leads without renewing that.
    pub lease_duration: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            snapshot_period: Duration::from_millis(100),
            redrive_after: Duration::from_secs(1),
            rebalance_period: Some(Duration::from_millis(100)),
            lease_duration: Duration::from_secs(2),
        }
    }
}

/// The control plane of all sales of a cluster.
pub struct Coordinator {
    /// For looking: short timeouts, and no barrier ever blocks its connections.
    pub(crate) reads: Cluster,
    pub(crate) writes: Cluster,
    pub(crate) timing: Timing,
    pub(crate) leadership: Leadership,
    pub(crate) records: Records,
    /// Whether the list of sales was seen not to name all that are known.
    pub(crate) list_is_lost: AtomicBool,
    pub(crate) observations: ArcSwap<BTreeMap<SaleId, Observation>>,
    /// Sales of which it is confirmed that so many units are sold, which was all of them.
    pub(crate) sold_out: ArcSwap<BTreeMap<SaleId, u64>>,
    /// Since when the tokens of some channel of a sale have been waiting.
    pub(crate) stalled_since: ArcSwap<BTreeMap<SaleId, Instant>>,
    /// The replicas of each primary.
    pub(crate) replication: ArcSwap<Vec<Replication>>,
    /// How much the latest audit of a sale found.
    pub(crate) audited: ArcSwap<BTreeMap<SaleId, u64>>,
    pub(crate) map_is_suspect: AtomicBool,
    audits: Semaphore,
}

/// Why something was not done, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// Nothing of this name.
    #[error("there is no sale {0:?}")]
    NoSale(String),
    /// The name is taken.
    #[error("sale {id} exists with other settings: {}", join(fields))]
    DifferentSettings {
        /// The sale.
        id: SaleId,
        /// What differs.
        fields: Vec<Field>,
    },
    /// It was there once. What its shards hold, or held, may be sold.
    #[error(
        "the record of sale {0:?} is lost, and is not made anew, for its units may have been sold; restore the data of \
         Redis from a backup, or sell under another name"
    )]
    RecordLost(String),
    /// No sale can be like that.
    #[error(transparent)]
    Invalid(InvalidSale),
    /// The sale cannot be changed like that.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// Too many operators at once. Nothing was done.
    #[error("others keep changing this sale; repeat the request")]
    Contended,
    /// Slots are served by nobody. Nothing was done.
    #[error("the cluster has no place for {0} shards now")]
    NotEnoughSlots(u16),
    /// Nothing was done.
    #[error("the sale cannot be read: {0}")]
    Unreadable(CallError),
    /// Nothing was done. The coordinator that leads restores the list from the records.
    #[error("the list of sales is lost, and being restored")]
    ListLost,
    /// It may have been done.
    #[error("it is unknown whether the sale was recorded: {0}")]
    UnknownOutcome(CallError),
    /// It is recorded, and will be done.
    #[error("recorded, but not confirmed by every shard yet: {}", join(.0))]
    Unconfirmed(Vec<UnconfirmedShard>),
    /// Another audit is under way.
    #[error("another audit is under way")]
    AuditBusy,
    /// The audit broke off.
    #[error(transparent)]
    AuditFailed(#[from] AuditError),
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The answer to a creation.
pub struct Created {
    /// The sale.
    pub sale: Sale,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// A sale, looked at.
pub struct Inspection {
    /// What is recorded.
    pub desired: DesiredState,
    /// What its shards hold.
    pub levels: Vec<Result<Level, CallError>>,
    /// Where they live.
    pub topology: Arc<Topology>,
    /// The latest published snapshot.
    pub snapshot: Option<Snapshot>,
    /// What is wrong.
    pub problems: Vec<ShardProblem>,
}

/// How the shards are looked at: like everything else, but with less patience.
pub fn read_options(options: &ConnectOptions) -> ConnectOptions {
    ConnectOptions {
        connect_timeout: options.connect_timeout.min(READ_TIMEOUT),
        response_timeout: options.response_timeout.min(READ_TIMEOUT),
        barrier_timeout: Duration::ZERO,
        ..options.clone()
    }
}

impl Coordinator {
    /// A coordinator that looks through `reads` (see [`read_options`]) and acts through `writes`. No other process
    /// has its name.
    pub fn new(name: String, reads: Cluster, writes: Cluster, timing: Timing) -> Self {
        Self {
            reads,
            writes,
            timing,
            leadership: Leadership::new(name, timing.lease_duration),
            records: Records::default(),
            list_is_lost: AtomicBool::default(),
            observations: ArcSwap::default(),
            sold_out: ArcSwap::default(),
            stalled_since: ArcSwap::default(),
            replication: ArcSwap::default(),
            audited: ArcSwap::default(),
            map_is_suspect: AtomicBool::default(),
            audits: Semaphore::new(AUDITS_MAX),
        }
    }

    /// Its place among the other coordinators.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Creates a sale, or finds that it is there; carries on from wherever an earlier creation broke off.
    ///
    /// # Errors
    /// When the name is taken, the settings cannot be, or not every shard has confirmed.
    pub async fn create(&self, wanted: &NewSale) -> Result<Created, CoordinatorError> {
        let (desired, is_new) = self.record_creation(wanted).await?;
        let sale = self.complete(desired).await?;
        Ok(Created { sale, is_new })
    }

    /// Writes down that the sale is to be created: from here on it will be, by this coordinator or the next.
    ///
    /// # Errors
    /// When the name is taken, the settings cannot be, it is unknown whether it is written, or it was written before
    /// and lost since.
    pub async fn record_creation(&self, wanted: &NewSale) -> Result<(DesiredState, bool), CoordinatorError> {
        let (desired, is_new) = match self.find(&wanted.id).await? {
            Some(existing) => (existing, false),
            None => self.record_new(wanted).await?,
        };
        if !is_new {
            check_same_settings(wanted, &desired)?;
        }
        // Listed last: a name in the list was recorded once, so one without a record has lost it.
        self.writes.write(AddSaleToList(&wanted.id)).await.map_err(CoordinatorError::UnknownOutcome)?;
        Ok((desired, is_new))
    }

    async fn record_new(&self, wanted: &NewSale) -> Result<(DesiredState, bool), CoordinatorError> {
        let desired = self.plan_layout(wanted).await?;
        match self
            .records
            .record(&self.writes, 0, &desired)
            .await
            .map_err(CoordinatorError::UnknownOutcome)?
        {
            RecordAnswer::Done => {
                tracing::info!(sale.id = %wanted.id, sale.shards = desired.mint.len(), "sale recorded");
                Ok((desired, true))
            }
            RecordAnswer::Overtaken(_) => {
                Ok((self.find(&wanted.id).await?.ok_or(CoordinatorError::Contended)?, false))
            }
        }
    }

    async fn plan_layout(&self, wanted: &NewSale) -> Result<DesiredState, CoordinatorError> {
        let topology = self.writes.topology();
        let shards_default = (SHARDS_PER_PRIMARY * topology.primaries().len()).clamp(1, SHARDS_MAX.into());
        let shards = wanted.shards.unwrap_or(shards_default as u16);
        // Before tags are looked for: nobody needs to look for thousands of them.
        wanted.validate(now()).map_err(CoordinatorError::Invalid)?;
        let owner = |slot| topology.primary(slot).map(|primary| primary.address.clone());
        let tags = choose_tags(&wanted.id, shards, owner);
        if tags.len() < usize::from(shards) {
            return Err(CoordinatorError::NotEnoughSlots(shards));
        }
        let sale = self.records.sale(wanted.config(tags, now())).await.map_err(CoordinatorError::Invalid)?;
        Ok(DesiredState { mint: sale.split(wanted.total_stock), sale })
    }

    /// Brings all shards to what is recorded, and opens the sale if it was being created. Where another operator has
    /// changed it since, to that: shards may follow the later change first.
    ///
    /// # Errors
    /// When not every shard has confirmed.
    pub async fn complete(&self, mut desired: DesiredState) -> Result<Sale, CoordinatorError> {
        for _ in 0..CHANGE_TRIES_MAX {
            let is_creating = desired.sale.config.state == SaleState::Creating;
            let unconfirmed = if is_creating {
                open(&self.writes, &self.records, &desired).await.map_err(CoordinatorError::UnknownOutcome)?
            } else {
                enforce(&self.writes, &desired).await
            };
            if unconfirmed.is_empty() && !is_creating {
                return Ok(desired.sale);
            }
            desired = match self.existing(desired.sale.id()).await {
                Ok(latest) if latest != desired => latest,
                Err(failure) if unconfirmed.is_empty() => return Err(failure),
                _ => return Err(CoordinatorError::Unconfirmed(unconfirmed)),
            };
        }
        Err(CoordinatorError::Contended)
    }

    /// Changes a sale; the sale afterwards, once every shard has confirmed.
    ///
    /// # Errors
    /// When there is no such sale, it cannot be changed so, or not every shard has confirmed.
    pub async fn change(&self, id: &SaleId, change: &Change) -> Result<Sale, CoordinatorError> {
        for _ in 0..CHANGE_TRIES_MAX {
            let before = self.existing(id).await?;
            let Some(after) = change.apply(&before)? else { return self.complete(before).await };
            let version = before.sale.config.version;
            let recorded = self.records.record(&self.writes, version, &after).await;
            if recorded.map_err(CoordinatorError::UnknownOutcome)? == RecordAnswer::Done {
                tracing::info!(sale.id = %id, sale.version = version + 1, ?change, "sale changed");
                return self.complete(after).await;
            }
        }
        Err(CoordinatorError::Contended)
    }

    /// What is recorded of a sale, and lasts.
    ///
    /// # Errors
    /// When there is none of this name, it cannot be read, or its record was lost.
    pub async fn existing(&self, id: &SaleId) -> Result<DesiredState, CoordinatorError> {
        self.find(id).await?.ok_or_else(|| CoordinatorError::NoSale(id.to_string()))
    }

    /// The same; `None` where there never was a sale of this name.
    async fn find(&self, id: &SaleId) -> Result<Option<DesiredState>, CoordinatorError> {
        let read =
            async || self.records.read_one(&self.writes, id).await.map_err(CoordinatorError::Unreadable);
        let found = read().await?;
        if found.is_some() || !self.has_remains(id).await.map_err(CoordinatorError::Unreadable)? {
            return Ok(found);
        }
        // Another coordinator may be creating it: the record comes before all traces.
        read().await?.map(Some).ok_or_else(|| CoordinatorError::RecordLost(id.to_string()))
    }

    /// Whether there is anything that only a recorded sale leaves.
    async fn has_remains(&self, id: &SaleId) -> Result<bool, CallError> {
        if self.records.known().contains_key(id) {
            return Ok(true);
        }
        let listed = self.writes.read(ListSales).await?;
        Ok(listed.is_some_and(|listed| listed.contains(id)) || has_shards(&self.writes, id).await?)
    }

    /// A sale for people to look at: its record may not last.
    async fn read_unconfirmed(&self, id: &SaleId) -> Result<DesiredState, CoordinatorError> {
        let mut records = self.records.read_unconfirmed(&self.writes, std::slice::from_ref(id)).await;
        match records.pop().expect("one sale has one record").map_err(CoordinatorError::Unreadable)? {
            Some(desired) => Ok(desired),
            None => self.existing(id).await,
        }
    }

    /// All sales.
    ///
    /// # Errors
    /// When the list, or a sale of it, cannot be read.
    pub async fn sales(&self) -> Result<Vec<Sale>, CoordinatorError> {
        let listed = self
            .writes
            .read(ListSales)
            .await
            .map_err(CoordinatorError::Unreadable)?
            .ok_or(CoordinatorError::ListLost)?;
        let records = self.records.read_unconfirmed(&self.writes, &listed).await.into_iter();
        let sales = records.filter_map(|record| Some(record.transpose()?.map(|desired| desired.sale)));
        sales.collect::<Result<_, _>>().map_err(CoordinatorError::Unreadable)
    }

    /// Looks at one sale. Shards that cannot be read are among the troubles.
    ///
    /// # Errors
    /// When there is none of this name, or its record cannot be read.
    pub async fn inspect(&self, id: &SaleId) -> Result<Inspection, CoordinatorError> {
        let sale = self.read_unconfirmed(id).await?.sale;
        let snapshot =
            self.writes.read(ReadSnapshot(&SaleKeys::new(id))).await.map_err(CoordinatorError::Unreadable)?;
        let calls: Vec<_> = sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
        let levels = self.reads.poll_all(&calls).await;
        // Shards follow the record, so one that was changed meanwhile is not ahead of it.
        let desired = self.read_unconfirmed(id).await?;
        if !desired.sale.has_same_layout_as(&sale) {
            return Err(CoordinatorError::Contended);
        }
        let topology = self.reads.topology();
        Ok(Inspection { problems: problems(&desired, &levels), desired, levels, topology, snapshot })
    }

    /// Reads a whole sale and holds it against the promise.
    ///
    /// # Errors
    /// When there is none of this name, a shard cannot be read, or others are being audited all the while.
    pub async fn audit(&self, id: &SaleId) -> Result<AuditReport, CoordinatorError> {
        let desired = self.read_unconfirmed(id).await?;
        let permit = tokio::time::timeout(AUDIT_WAIT_MAX, self.audits.acquire()).await;
        let _permit = permit.map_err(|_| CoordinatorError::AuditBusy)?.expect("nobody closes the audits");
        let found = audit(&self.writes, &desired.sale).await.map_err(CoordinatorError::from);
        metrics::audited(id, &found);
        if let Ok(audit) = &found {
            let violations = audit.violations.len() as u64;
            self.audited.rcu(|before| {
                let mut audited = BTreeMap::clone(before);
                audited.insert(id.clone(), violations);
                audited
            });
        }
        found
    }
}

fn check_same_settings(wanted: &NewSale, existing: &DesiredState) -> Result<(), CoordinatorError> {
    let fields = wanted.differences(&existing.sale.config);
    if fields.is_empty() {
        Ok(())
    } else {
        Err(CoordinatorError::DifferentSettings { id: wanted.id.clone(), fields })
    }
}
