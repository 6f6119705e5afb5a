//! Operations on request: creates, changes, inspects and audits sales.
//!
//! Each operation records the desired state, brings the shards to it, and returns once all of them have confirmed. If a
//! coordinator dies in between, the reconciler of the next leader completes the work from the record.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rediscluster::{CallError, Topology};
use serde_json::{Value, json};
use service::time::now;
use stock::active::ChangeActiveSales;
use stock::audit::{AuditError, AuditReport, audit};
use stock::calls::{Level, ReadLevel, RecordAnswer};
use stock::history::{ChangeOrigin, HistoryEntry, ReadHistory};
use stock::ids::SaleId;
use stock::layout::{Fingerprint, SaleKeys, choose_tags};
use stock::sale::{InvalidSale, Sale, SaleStage, SaleState};
use stock::search::has_shards;
use stock::snapshot::{Confirm, Confirmed, Snapshot};
use stock::store::{AddSaleToList, ListSales, ReadSnapshot};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::apply::{enforce, open, remove};
use crate::change::{Change, ChangeError, archived, entry};
use crate::context::Context;
use crate::desired_state::DesiredState;
use crate::metrics;
use crate::new_sale::{Field, NewSale, warnings};
use crate::shard_problem::{ShardProblem, problems};
use crate::transfers::UnconfirmedShard;
use OperationError::{UnknownOutcome, Unreadable};

/// How many versions a change is based on before it gives up. Each further try means that another operator changed the
/// same sale within the same few milliseconds.
const CHANGE_TRIES_MAX: u32 = 5;

/// Records that are read together for the list of sales.
const RECORDS_PER_READ: usize = 100;

/// Most audits at a time. An audit reads every claim of a sale into memory.
const AUDITS_MAX: usize = 1;
/// Longest wait for another audit to end. An audit of a million claims takes some seconds.
const AUDIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// Oldest note of a ledger that counts. A ledger that works repeats its note every five seconds, after it has asked
/// PostgreSQL.
const NOTE_AGE_MAX: Duration = Duration::from_mins(1);

/// Operations on the sales of a cluster.
pub struct SaleOperations {
    context: Arc<Context>,
    audits: Semaphore,
    /// The number of violations that the latest audit of each sale found.
    audited: watch::Sender<BTreeMap<Fingerprint, u64>>,
}

/// Why a request failed, or has an unknown outcome.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
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
    /// Some shards have not confirmed that the sale has ended. Nothing was recorded.
    #[error("not every shard confirms that the sale has ended: {}", join(.0))]
    NotEnded(Vec<UnconfirmedShard>),
    /// The claims and orders of an archived sale are not in Redis any more.
    #[error("the sale is archived; its orders are in the ledger")]
    Archived,
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

/// Which sales to list.
pub struct ListQuery {
    /// The stages of the sales; all if empty.
    pub stages: Vec<SaleStage>,
    /// Most sales, at least 1.
    pub limit: usize,
    /// Only sales with greater ids.
    pub after: Option<SaleId>,
}

/// A page of the list of sales.
pub struct SalePage {
    /// The sales, by id.
    pub sales: Vec<Sale>,
    /// The id after which the next page starts; `None` if there are no more sales.
    pub next: Option<SaleId>,
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

impl SaleOperations {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, audits: Semaphore::new(AUDITS_MAX), audited: watch::Sender::default() }
    }

    /// Creates a sale, or returns the existing one. Continues a creation that was interrupted.
    ///
    /// # Errors
    /// Fails when the name is taken by a sale with other settings, the settings are not valid, or not every shard has
    /// confirmed.
    pub async fn create(&self, wanted: &NewSale, origin: &ChangeOrigin) -> Result<Created, OperationError> {
        let (desired, is_new) = self.record_creation(wanted, origin).await?;
        let sale = self.complete(desired).await?;
        Ok(Created { sale, is_new })
    }

    /// Records that the sale is to be created. From then on this coordinator or the next one creates it.
    ///
    /// # Errors
    /// Fails when the name is taken by a sale with other settings, the settings are not valid, it is unknown whether
    /// the sale was recorded, or the sale existed and its record was lost.
    pub async fn record_creation(
        &self,
        wanted: &NewSale,
        origin: &ChangeOrigin,
    ) -> Result<(DesiredState, bool), OperationError> {
        let (desired, is_new) = match self.find(&wanted.id).await? {
            Some(existing) => (existing, false),
            None => self.record_new(wanted, origin).await?,
        };
        if !is_new {
            check_same_settings(wanted, &desired)?;
        }
        // The list comes last. So a name in the list was recorded once, and if its record is missing, it is lost.
        self.context.writes.write(AddSaleToList(&wanted.id)).await.map_err(UnknownOutcome)?;
        if !desired.sale.config.is_over(now()) {
            self.activate(&wanted.id).await?;
        }
        Ok((desired, is_new))
    }

    async fn record_new(
        &self,
        wanted: &NewSale,
        origin: &ChangeOrigin,
    ) -> Result<(DesiredState, bool), OperationError> {
        let desired = self.plan_layout(wanted).await?;
        let values = json!({ "totalStock": wanted.total_stock, "shards": desired.mint.len() });
        let mut entry = entry("create", values, &desired.sale.config, origin, now());
        note_warnings(&mut entry, &desired.sale);
        match self.record(0, &desired, &entry).await? {
            RecordAnswer::Done => {
                log_change(&wanted.id, &entry);
                Ok((desired, true))
            }
            RecordAnswer::Overtaken(_) => {
                let lost = || OperationError::RecordLost(wanted.id.to_string());
                Ok((self.find(&wanted.id).await?.ok_or_else(lost)?, false))
            }
        }
    }

    /// Has all nodes and coordinators follow the sale.
    async fn activate(&self, id: &SaleId) -> Result<(), OperationError> {
        let activated = self.context.writes.write(ChangeActiveSales::Add(slice::from_ref(id))).await;
        activated.map_err(UnknownOutcome)
    }

    /// Records a change of an existing sale. A coordinator that dies after the record has activated the sale, so others
    /// complete the change. A leader that found the sale at rest meanwhile may have undone that, so it is repeated.
    async fn record_change(
        &self,
        before: &DesiredState,
        after: &DesiredState,
        entry: &HistoryEntry,
    ) -> Result<RecordAnswer, OperationError> {
        let id = after.sale.id();
        self.activate(id).await?;
        let recorded = self.record(before.sale.config.version, after, entry).await?;
        self.activate(id).await?;
        Ok(recorded)
    }

    async fn record(
        &self,
        based_on: u64,
        desired: &DesiredState,
        entry: &HistoryEntry,
    ) -> Result<RecordAnswer, OperationError> {
        self.context.records.record(based_on, desired, entry).await.map_err(UnknownOutcome)
    }

    async fn plan_layout(&self, wanted: &NewSale) -> Result<DesiredState, OperationError> {
        let topology = self.context.writes.topology();
        let shards = wanted.shards_on(topology.primaries().len());
        // Validates before the search for tags, which must not run for thousands of shards.
        wanted.validate(now()).map_err(OperationError::Invalid)?;
        let owner = |slot| topology.primary(slot).map(|primary| &primary.address);
        let tags = choose_tags(&wanted.id, shards, owner);
        if tags.len() < usize::from(shards) {
            return Err(OperationError::NotEnoughSlots(shards));
        }
        let sale =
            self.context.records.sale(wanted.config(tags, now())).await.map_err(OperationError::Invalid)?;
        Ok(DesiredState { mint: sale.split(wanted.total_stock), sale })
    }

    /// Brings all shards to the recorded state, and opens the sale if it is being created. If another operator has
    /// changed the sale since, it applies the latest record: shards may have followed that one already.
    ///
    /// # Errors
    /// Fails when not every shard has confirmed.
    pub async fn complete(&self, mut desired: DesiredState) -> Result<Sale, OperationError> {
        for _ in 0..CHANGE_TRIES_MAX {
            let is_creating = desired.sale.config.state == SaleState::Creating;
            if desired.sale.config.is_removed() {
                return Ok(desired.sale);
            }
            let is_archived = desired.sale.config.archive.is_some();
            let unconfirmed = if is_archived {
                let Context { writes, records, .. } = &*self.context;
                remove(writes, records, &desired).await.map_err(UnknownOutcome)?
            } else if is_creating {
                open(&self.context.writes, &self.context.records, &desired).await.map_err(UnknownOutcome)?
            } else {
                enforce(&self.context.writes, &desired).await.err().unwrap_or_default()
            };
            if unconfirmed.is_empty() && !is_creating && !is_archived {
                return Ok(desired.sale);
            }
            desired = match self.existing(desired.sale.id()).await {
                Ok(latest) if latest != desired => latest,
                Err(failure) if unconfirmed.is_empty() => return Err(failure),
                _ => return Err(OperationError::Unconfirmed(unconfirmed)),
            };
        }
        Err(OperationError::Contended)
    }

    /// Changes a sale. Returns the changed sale once every shard has confirmed.
    ///
    /// # Errors
    /// Fails when the sale does not exist, does not allow the change, or not every shard has confirmed.
    pub async fn change(
        &self,
        id: &SaleId,
        change: &Change,
        origin: &ChangeOrigin,
    ) -> Result<Sale, OperationError> {
        for _ in 0..CHANGE_TRIES_MAX {
            let before = self.existing(id).await?;
            let Some(after) = change.apply(&before)? else { return self.complete(before).await };
            let mut entry = change.entry(&after.sale.config, origin, now());
            if matches!(change, Change::Restock(_)) {
                note_warnings(&mut entry, &after.sale);
            }
            if self.record_change(&before, &after, &entry).await? == RecordAnswer::Done {
                log_change(id, &entry);
                return self.complete(after).await;
            }
        }
        Err(OperationError::Contended)
    }

    /// Archives an ended sale: records its final numbers, and removes its claims and orders from Redis. Without
    /// `orders_exported`, a ledger must have noted within [`NOTE_AGE_MAX`] that it has all orders of each shard.
    ///
    /// # Errors
    /// Fails when the sale does not exist, has not ended, has orders that no ledger has, or not every shard has confirmed.
    pub async fn archive(
        &self,
        id: &SaleId,
        orders_exported: bool,
        origin: &ChangeOrigin,
    ) -> Result<Sale, OperationError> {
        for _ in 0..CHANGE_TRIES_MAX {
            let before = self.existing(id).await?;
            if before.sale.config.archive.is_some() {
                return self.complete(before).await;
            }
            let sold = self.final_sales(&before, orders_exported).await?;
            let after = archived(&before, sold)?;
            let values = json!({ "sold": sold, "ordersExported": orders_exported });
            let entry = entry("archive", values, &after.sale.config, origin, now());
            if self.record_change(&before, &after, &entry).await? == RecordAnswer::Done {
                log_change(id, &entry);
                return self.complete(after).await;
            }
        }
        Err(OperationError::Contended)
    }

    /// Returns the number of units that an ended sale has sold. Each shard confirms first that it has ended, so that no
    /// sale follows.
    async fn final_sales(
        &self,
        desired: &DesiredState,
        orders_exported: bool,
    ) -> Result<u64, OperationError> {
        if desired.sale.config.state != SaleState::Ended {
            return Err(ChangeError::NotEnded.into());
        }
        let writes = &self.context.writes;
        enforce(writes, desired).await.map_err(OperationError::NotEnded)?;
        let calls: Vec<_> = desired.sale.shards().iter().map(|shard| Confirm { shard }).collect();
        let confirmed: Result<Vec<Confirmed>, CallError> =
            writes.write_all(&calls).await.into_iter().collect();
        let confirmed = confirmed.map_err(Unreadable)?;
        let missing = confirmed.iter().filter(|shard| !is_in_ledger(shard)).count();
        if missing > 0 && !orders_exported {
            return Err(ChangeError::NotInLedger { missing }.into());
        }
        Ok(confirmed.iter().map(|shard| shard.sold).sum())
    }

    /// Returns the durable record of a sale.
    ///
    /// # Errors
    /// Fails when the sale does not exist, cannot be read, or its record was lost.
    pub async fn existing(&self, id: &SaleId) -> Result<DesiredState, OperationError> {
        self.find(id).await?.ok_or_else(|| OperationError::NoSale(id.to_string()))
    }

    /// Like [`Self::existing`], but returns `None` if the sale never existed.
    async fn find(&self, id: &SaleId) -> Result<Option<DesiredState>, OperationError> {
        let read = async || self.context.records.read_one(id).await.map_err(Unreadable);
        let found = read().await?;
        if found.is_some() || !self.has_remains(id).await.map_err(Unreadable)? {
            return Ok(found);
        }
        // Another coordinator may have created the sale in between: it writes the record before everything else.
        read().await?.map(Some).ok_or_else(|| OperationError::RecordLost(id.to_string()))
    }

    /// Returns true if Redis or this coordinator still knows something that only a recorded sale leaves behind.
    async fn has_remains(&self, id: &SaleId) -> Result<bool, CallError> {
        if self.context.records.known().contains_key(id) {
            return Ok(true);
        }
        let listed = self.context.writes.read(ListSales).await?;
        Ok(listed.is_some_and(|listed| listed.contains(id)) || has_shards(&self.context.writes, id).await?)
    }

    /// Reads the record of a sale for display only, because it may not be durable.
    async fn read_unconfirmed(&self, id: &SaleId) -> Result<DesiredState, OperationError> {
        let mut records = self.context.records.read_unconfirmed(slice::from_ref(id)).await;
        match records.pop().expect("one sale has one record").map_err(Unreadable)? {
            Some(desired) => Ok(desired),
            None => self.existing(id).await,
        }
    }

    /// Returns a page of the sales, by id.
    ///
    /// # Errors
    /// Fails when the list of sales, or the record of a sale, cannot be read.
    pub async fn list(&self, query: &ListQuery) -> Result<SalePage, OperationError> {
        let Context { records, writes, .. } = &*self.context;
        let listed = writes.read(ListSales).await.map_err(Unreadable)?.ok_or(OperationError::ListLost)?;
        let is_after = |id: &SaleId| query.after.as_ref().is_none_or(|after| id > after);
        let listed: Vec<SaleId> = listed.into_iter().filter(is_after).collect();
        let is_wanted =
            |sale: &Sale| query.stages.is_empty() || query.stages.contains(&sale.config.stage_at(now()));
        let mut sales: Vec<Sale> = Vec::new();
        for ids in listed.chunks(RECORDS_PER_READ) {
            for record in records.read_unconfirmed(ids).await {
                let Some(DesiredState { sale, .. }) = record.map_err(Unreadable)? else { continue };
                if !is_wanted(&sale) {
                    continue;
                }
                if sales.len() == query.limit {
                    let next = sales.last().map(|last| last.id().clone());
                    return Ok(SalePage { sales, next });
                }
                sales.push(sale);
            }
        }
        Ok(SalePage { sales, next: None })
    }

    /// Returns the current state of a sale. Shards that cannot be read are listed as problems.
    ///
    /// # Errors
    /// Fails when the sale does not exist, or its record cannot be read.
    pub async fn inspect(&self, id: &SaleId) -> Result<Inspection, OperationError> {
        let sale = self.read_unconfirmed(id).await?.sale;
        let snapshot =
            self.context.writes.read(ReadSnapshot(&SaleKeys::new(id))).await.map_err(Unreadable)?;
        let calls: Vec<_> = sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
        let levels = self.context.reads.poll_all(&calls).await;
        // The record is read again after the levels: shards follow the record, so a shard that was changed in between
        // does not appear ahead of it.
        let desired = self.read_unconfirmed(id).await?;
        if desired.sale.fingerprint() != sale.fingerprint() {
            return Err(OperationError::Contended);
        }
        let topology = self.context.reads.topology();
        Ok(Inspection { problems: problems(&desired, &levels), desired, levels, topology, snapshot })
    }

    /// Returns the latest changes of a sale, oldest first. They may not be durable yet.
    ///
    /// # Errors
    /// Fails when the sale does not exist, or its history cannot be read.
    pub async fn history(&self, id: &SaleId) -> Result<Vec<HistoryEntry>, OperationError> {
        self.read_unconfirmed(id).await?;
        self.context.writes.read(ReadHistory(&SaleKeys::new(id))).await.map_err(Unreadable)
    }

    /// Audits a sale: reads all of its data and checks the invariants.
    ///
    /// # Errors
    /// Fails when the sale does not exist, a shard cannot be read, or other audits run for too long.
    pub async fn audit(&self, id: &SaleId) -> Result<AuditReport, OperationError> {
        let desired = self.read_unconfirmed(id).await?;
        if desired.sale.config.archive.is_some() {
            return Err(OperationError::Archived);
        }
        let permit = timeout(AUDIT_WAIT_MAX, self.audits.acquire()).await;
        let _permit = permit.map_err(|_| OperationError::AuditBusy)?.expect("the semaphore is never closed");
        let found = audit(&self.context.writes, &desired.sale).await;
        metrics::audited(id, &found);
        if let Ok(audit) = &found {
            let (sale, violations) = (desired.sale.fingerprint().clone(), audit.violations.len() as u64);
            self.audited.send_modify(|audited| {
                audited.insert(sale, violations);
            });
        }
        Ok(found?)
    }

    /// The number of violations that the latest audit of each known sale found. Sales without an audit are left out.
    pub(crate) fn latest_audits(&self) -> Vec<(SaleId, u64)> {
        let (known, audited) = (self.context.records.known(), self.audited.borrow());
        let violations =
            known.iter().map(|(id, desired)| Some((id.clone(), *audited.get(desired.sale.fingerprint())?)));
        violations.flatten().collect()
    }
}

/// Returns true if a ledger has all orders of a shard.
fn is_in_ledger(shard: &Confirmed) -> bool {
    shard.seq == 0 || shard.drained.is_some_and(|note| note.seq == shard.seq && note.age <= NOTE_AGE_MAX)
}

/// Adds the warnings about a sale to the values of a change, and logs them.
fn note_warnings(entry: &mut HistoryEntry, sale: &Sale) {
    let warnings = warnings(sale);
    for warning in &warnings {
        tracing::warn!(sale.id = %sale.id(), "{warning}");
    }
    if !warnings.is_empty() {
        entry.values.insert("warnings".to_owned(), json!(warnings));
    }
}

/// Writes a change to the audit log.
fn log_change(id: &SaleId, entry: &HistoryEntry) {
    let HistoryEntry { version, change, values, origin, .. } = entry;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let values = Value::Object(values.clone());
    tracing::info!(
        sale.id = %id,
        sale.version = version,
        change,
        %values,
        operator.name = text(&origin.operator),
        client.address = text(&origin.address),
        correlation.id = text(&origin.correlation_id),
        reason = text(&origin.reason),
        "audit: sale changed"
    );
}

fn check_same_settings(wanted: &NewSale, existing: &DesiredState) -> Result<(), OperationError> {
    let fields = wanted.differences(&existing.sale.config);
    if fields.is_empty() {
        Ok(())
    } else {
        Err(OperationError::DifferentSettings { id: wanted.id.clone(), fields })
    }
}
