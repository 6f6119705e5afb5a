//! Operations on request: creates, changes, inspects and audits sales.
//!
//! Each operation records the desired state, brings the shards to it, and returns once all of them have confirmed. If a
//! coordinator dies in between, [`Coordinator::run`] of the next one completes the work from the record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use rediscluster::{CallError, Cluster, ConnectOptions, Topology};
use service::time::now;
use stock::audit::{AuditError, AuditReport, audit};
use stock::calls::{Level, ReadLevel, RecordAnswer};
use stock::ids::SaleId;
use stock::layout::{Fingerprint, SaleKeys, choose_tags};
use stock::sale::{InvalidSale, SHARDS_MAX, Sale, SaleState};
use stock::search::has_shards;
use stock::snapshot::Snapshot;
use stock::store::{AddSaleToList, ListSales, ReadSnapshot};
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

/// Shards per primary if the request names no number. With four, slots can move to new primaries in even steps.
const SHARDS_PER_PRIMARY: usize = 4;

/// How many versions a change is based on before it gives up. Each further try means that another operator changed the
/// same sale within the same few milliseconds.
const CHANGE_TRIES_MAX: u32 = 5;

/// Most audits at a time. An audit reads every claim of a sale into memory.
const AUDITS_MAX: usize = 1;
/// Longest wait for another audit to end. An audit of a million claims takes some seconds.
const AUDIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// Longest wait for a reply when reading shards. A primary that does not answer by then is asked again in the next
/// round, and must not delay the results of the others.
const READ_TIMEOUT: Duration = Duration::from_millis(250);

/// Periods and waits of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time from one snapshot to the next.
    pub snapshot_period: Duration,
    /// How long a channel may stay idle before it is re-driven.
    pub redrive_after: Duration,
    /// Time from one rebalancing to the next; `None` disables rebalancing.
    pub rebalance_period: Option<Duration>,
    /// How long a coordinator leads without renewing the lease.
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
    /// For reads: with short timeouts, and never blocked by a barrier.
    pub(crate) reads: Cluster,
    pub(crate) writes: Cluster,
    pub(crate) timing: Timing,
    pub(crate) leadership: Leadership,
    pub(crate) records: Records,
    /// True if the list of sales was seen not to name all known sales.
    pub(crate) list_is_lost: AtomicBool,
    pub(crate) observations: ArcSwap<BTreeMap<SaleId, Observation>>,
    /// The total of each sale for which it is confirmed that all units are sold.
    pub(crate) sold_out: ArcSwap<BTreeMap<Fingerprint, u64>>,
    /// Since when tokens have been waiting in the channel of each sale that stalled longest.
    pub(crate) stalled_since: ArcSwap<BTreeMap<Fingerprint, Instant>>,
    /// The replicas of each primary.
    pub(crate) replication: ArcSwap<Vec<Replication>>,
    /// The number of violations that the latest audit of each sale found.
    pub(crate) audited: ArcSwap<BTreeMap<Fingerprint, u64>>,
    pub(crate) map_is_suspect: AtomicBool,
    audits: Semaphore,
}

/// Why a request failed, or has an unknown outcome.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// No sale has this name.
    #[error("there is no sale {0:?}")]
    NoSale(String),
    /// A sale of this name exists with other settings.
    #[error("sale {id} exists with other settings: {}", join(fields))]
    DifferentSettings {
        /// The existing sale.
        id: SaleId,
        /// The settings that differ.
        fields: Vec<Field>,
    },
    /// The sale existed, and its record is lost. Units of its shards may have been sold.
    #[error(
        "the record of sale {0:?} is lost; the sale is not created again because units may have been sold; restore the \
         data of Redis from a backup, or create a sale with another id"
    )]
    RecordLost(String),
    /// The settings are not valid.
    #[error(transparent)]
    Invalid(InvalidSale),
    /// The sale does not allow this change.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// Other operators kept changing the sale. Nothing was done.
    #[error("other operators keep changing this sale; repeat the request")]
    Contended,
    /// Some slots have no primary. Nothing was done.
    #[error("some slots have no primary; {0} shards cannot be placed")]
    NotEnoughSlots(u16),
    /// The sale cannot be read. Nothing was done.
    #[error("the sale cannot be read: {0}")]
    Unreadable(CallError),
    /// The list of sales is lost. Nothing was done. The leader restores the list from the records.
    #[error("the list of sales is lost; the leader restores it")]
    ListLost,
    /// The request may have been recorded.
    #[error("it is unknown whether the sale was recorded: {0}")]
    UnknownOutcome(CallError),
    /// The request is recorded, and will be applied.
    #[error("recorded, but not confirmed by every shard yet: {}", join(.0))]
    Unconfirmed(Vec<UnconfirmedShard>),
    /// Another audit is running.
    #[error("another audit is running")]
    AuditBusy,
    /// The audit failed.
    #[error(transparent)]
    AuditFailed(#[from] AuditError),
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The result of a creation.
pub struct Created {
    /// The sale.
    pub sale: Sale,
    /// True if the sale did not exist before.
    pub is_new: bool,
}

/// The current state of a sale.
pub struct Inspection {
    /// The recorded state.
    pub desired: DesiredState,
    /// The levels of its shards.
    pub levels: Vec<Result<Level, CallError>>,
    /// The cluster's map, with the primary of each shard.
    pub topology: Arc<Topology>,
    /// The latest published snapshot.
    pub snapshot: Option<Snapshot>,
    /// The problems of its shards.
    pub problems: Vec<ShardProblem>,
}

/// Options for connections that only read: the same servers with shorter timeouts.
pub fn read_options(options: &ConnectOptions) -> ConnectOptions {
    ConnectOptions {
        connect_timeout: options.connect_timeout.min(READ_TIMEOUT),
        response_timeout: options.response_timeout.min(READ_TIMEOUT),
        barrier_timeout: Duration::ZERO,
        ..options.clone()
    }
}

impl Coordinator {
    /// A coordinator that reads through `reads` (see [`read_options`]) and writes through `writes`. `name` must be
    /// unique among all processes.
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

    /// The role of this coordinator among the others.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Creates a sale, or returns the existing one. Continues a creation that was interrupted.
    ///
    /// # Errors
    /// Fails when the name is taken by a sale with other settings, the settings are not valid, or not every shard has
    /// confirmed.
    pub async fn create(&self, wanted: &NewSale) -> Result<Created, CoordinatorError> {
        let (desired, is_new) = self.record_creation(wanted).await?;
        let sale = self.complete(desired).await?;
        Ok(Created { sale, is_new })
    }

    /// Records that the sale is to be created. From then on this coordinator or the next one creates it.
    ///
    /// # Errors
    /// Fails when the name is taken by a sale with other settings, the settings are not valid, it is unknown whether
    /// the sale was recorded, or the sale existed and its record was lost.
    pub async fn record_creation(&self, wanted: &NewSale) -> Result<(DesiredState, bool), CoordinatorError> {
        let (desired, is_new) = match self.find(&wanted.id).await? {
            Some(existing) => (existing, false),
            None => self.record_new(wanted).await?,
        };
        if !is_new {
            check_same_settings(wanted, &desired)?;
        }
        // The list comes last. So a name in the list was recorded once, and if its record is missing, it is lost.
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
                let lost = || CoordinatorError::RecordLost(wanted.id.to_string());
                Ok((self.find(&wanted.id).await?.ok_or_else(lost)?, false))
            }
        }
    }

    async fn plan_layout(&self, wanted: &NewSale) -> Result<DesiredState, CoordinatorError> {
        let topology = self.writes.topology();
        let shards_default = (SHARDS_PER_PRIMARY * topology.primaries().len()).clamp(1, SHARDS_MAX.into());
        let shards = wanted.shards.unwrap_or(shards_default as u16);
        // Validates before the search for tags, which must not run for thousands of shards.
        wanted.validate(now()).map_err(CoordinatorError::Invalid)?;
        let owner = |slot| topology.primary(slot).map(|primary| primary.address.clone());
        let tags = choose_tags(&wanted.id, shards, owner);
        if tags.len() < usize::from(shards) {
            return Err(CoordinatorError::NotEnoughSlots(shards));
        }
        let sale = self.records.sale(wanted.config(tags, now())).await.map_err(CoordinatorError::Invalid)?;
        Ok(DesiredState { mint: sale.split(wanted.total_stock), sale })
    }

    /// Brings all shards to the recorded state, and opens the sale if it is being created. If another operator has
    /// changed the sale since, it applies the latest record: shards may have followed that one already.
    ///
    /// # Errors
    /// Fails when not every shard has confirmed.
    pub async fn complete(&self, mut desired: DesiredState) -> Result<Sale, CoordinatorError> {
        for _ in 0..CHANGE_TRIES_MAX {
            let is_creating = desired.sale.config.state == SaleState::Creating;
            let unconfirmed = if is_creating {
                open(&self.writes, &self.records, &desired).await.map_err(CoordinatorError::UnknownOutcome)?
            } else {
                enforce(&self.writes, &desired).await.err().unwrap_or_default()
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

    /// Changes a sale. Returns the changed sale once every shard has confirmed.
    ///
    /// # Errors
    /// Fails when the sale does not exist, does not allow the change, or not every shard has confirmed.
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

    /// Returns the durable record of a sale.
    ///
    /// # Errors
    /// Fails when the sale does not exist, cannot be read, or its record was lost.
    pub async fn existing(&self, id: &SaleId) -> Result<DesiredState, CoordinatorError> {
        self.find(id).await?.ok_or_else(|| CoordinatorError::NoSale(id.to_string()))
    }

    /// Like [`Self::existing`], but returns `None` if the sale never existed.
    async fn find(&self, id: &SaleId) -> Result<Option<DesiredState>, CoordinatorError> {
        let read =
            async || self.records.read_one(&self.writes, id).await.map_err(CoordinatorError::Unreadable);
        let found = read().await?;
        if found.is_some() || !self.has_remains(id).await.map_err(CoordinatorError::Unreadable)? {
            return Ok(found);
        }
        // Another coordinator may have created the sale in between: it writes the record before everything else.
        read().await?.map(Some).ok_or_else(|| CoordinatorError::RecordLost(id.to_string()))
    }

    /// Returns true if Redis or this coordinator still knows something that only a recorded sale leaves behind.
    async fn has_remains(&self, id: &SaleId) -> Result<bool, CallError> {
        if self.records.known().contains_key(id) {
            return Ok(true);
        }
        let listed = self.writes.read(ListSales).await?;
        Ok(listed.is_some_and(|listed| listed.contains(id)) || has_shards(&self.writes, id).await?)
    }

    /// Reads the record of a sale for display only, because it may not be durable.
    async fn read_unconfirmed(&self, id: &SaleId) -> Result<DesiredState, CoordinatorError> {
        let mut records = self.records.read_unconfirmed(&self.writes, std::slice::from_ref(id)).await;
        match records.pop().expect("one sale has one record").map_err(CoordinatorError::Unreadable)? {
            Some(desired) => Ok(desired),
            None => self.existing(id).await,
        }
    }

    /// Returns all sales.
    ///
    /// # Errors
    /// Fails when the list of sales, or the record of a sale, cannot be read.
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

    /// Returns the current state of a sale. Shards that cannot be read are listed as problems.
    ///
    /// # Errors
    /// Fails when the sale does not exist, or its record cannot be read.
    pub async fn inspect(&self, id: &SaleId) -> Result<Inspection, CoordinatorError> {
        let sale = self.read_unconfirmed(id).await?.sale;
        let snapshot =
            self.writes.read(ReadSnapshot(&SaleKeys::new(id))).await.map_err(CoordinatorError::Unreadable)?;
        let calls: Vec<_> = sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
        let levels = self.reads.poll_all(&calls).await;
        // The record is read again after the levels: shards follow the record, so a shard that was changed in between
        // does not appear ahead of it.
        let desired = self.read_unconfirmed(id).await?;
        if desired.sale.fingerprint() != sale.fingerprint() {
            return Err(CoordinatorError::Contended);
        }
        let topology = self.reads.topology();
        Ok(Inspection { problems: problems(&desired, &levels), desired, levels, topology, snapshot })
    }

    /// Audits a sale: reads all of its data and checks the invariants.
    ///
    /// # Errors
    /// Fails when the sale does not exist, a shard cannot be read, or other audits run for too long.
    pub async fn audit(&self, id: &SaleId) -> Result<AuditReport, CoordinatorError> {
        let desired = self.read_unconfirmed(id).await?;
        let permit = tokio::time::timeout(AUDIT_WAIT_MAX, self.audits.acquire()).await;
        let _permit =
            permit.map_err(|_| CoordinatorError::AuditBusy)?.expect("the semaphore is never closed");
        let found = audit(&self.writes, &desired.sale).await.map_err(CoordinatorError::from);
        metrics::audited(id, &found);
        if let Ok(audit) = &found {
            let violations = audit.violations.len() as u64;
            self.audited.rcu(|before| {
                let mut audited = BTreeMap::clone(before);
                audited.insert(desired.sale.fingerprint().clone(), violations);
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
