//! Reads and writes the records of sales, and caches those that are known to be durable.
//!
//! A failover can take back a record that was merely read, and shards that had followed it would keep settings that no
//! record holds. So a record that differs from the cached one is read again, confirmed by a barrier, and is used only then. An
//! unchanged record costs one read.
//!
//! Computing a ring takes milliseconds, so the ring of each sale is kept: the layout never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::sync::Arc;

use futures::future::join_all;
use rediscluster::{CallError, Cluster};
use service::time::now;
use stock::calls::{Recall, Record, RecordAnswer, SaleRecord};
use stock::history::HistoryEntry;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::{InvalidSale, Sale, SaleConfig};
use stock::store::ReadConfig;
use tokio::sync::watch;

use crate::desired_state::DesiredState;

/// The durable records of all sales.
pub struct Records {
    reads: Arc<Cluster>,
    writes: Arc<Cluster>,
    known: watch::Sender<Arc<BTreeMap<SaleId, DesiredState>>>,
    active: watch::Sender<Option<Arc<BTreeSet<SaleId>>>>,
}

/// The record of a sale; `None` if it does not exist.
pub type RecordReading = Result<Option<DesiredState>, CallError>;

impl Records {
    pub(crate) fn new(reads: Arc<Cluster>, writes: Arc<Cluster>) -> Self {
        Self { reads, writes, known: watch::Sender::default(), active: watch::Sender::default() }
    }

    /// The latest record of each sale that is known to be durable.
    pub fn known(&self) -> Arc<BTreeMap<SaleId, DesiredState>> {
        self.known.borrow().clone()
    }

    /// The latest record of each sale that needs observing: whose shards exist, or should, and that is not at rest.
    pub fn observed(&self) -> Vec<(SaleId, DesiredState)> {
        let known = self.known();
        let needs_observing = |(_, desired): &(&SaleId, &DesiredState)| {
            !desired.sale.config.is_removed() && !self.is_at_rest(&desired.sale)
        };
        known.iter().filter(needs_observing).map(|(id, desired)| (id.clone(), desired.clone())).collect()
    }

    /// The active sales; `None` while the set is lost or was not read yet.
    pub(crate) fn active(&self) -> Option<Arc<BTreeSet<SaleId>>> {
        self.active.borrow().clone()
    }

    pub(crate) fn set_active(&self, active: Option<BTreeSet<SaleId>>) {
        self.active.send_replace(active.map(Arc::new));
    }

    /// Returns true if the sale is over and not active: nothing happens to it until an operator changes it.
    pub(crate) fn is_at_rest(&self, sale: &Sale) -> bool {
        let active = self.active.borrow();
        active.as_ref().is_some_and(|active| !active.contains(sale.id())) && sale.config.is_over(now())
    }

    /// Reads these records with short timeouts. Confirms changed ones with one try.
    pub async fn follow(&self, ids: &[SaleId]) -> Vec<RecordReading> {
        self.read(&self.reads, ids, async |changed| self.writes.write_all_once(changed).await).await
    }

    /// Reads the record of one sale.
    ///
    /// # Errors
    /// Fails when the record cannot be read, is not known to be durable, or has a form that this version does not know.
    pub async fn read_one(&self, id: &SaleId) -> RecordReading {
        let confirm = async |changed: &[Recall<'_>]| self.writes.write_all(changed).await;
        self.read(&self.writes, slice::from_ref(id), confirm).await.pop().expect("one sale has one record")
    }

    /// Reads these records for display only, because they may not be durable.
    pub async fn read_unconfirmed(&self, ids: &[SaleId]) -> Vec<RecordReading> {
        let keys: Vec<SaleKeys> = ids.iter().map(SaleKeys::new).collect();
        let records = self.writes.read_all(&keys.iter().map(recall).collect::<Vec<_>>()).await;
        join_all(records.into_iter().map(async |record| self.to_desired_state(record?).await)).await
    }

    async fn read(
        &self,
        cluster: &Cluster,
        ids: &[SaleId],
        confirm: impl AsyncFnOnce(&[Recall<'_>]) -> Vec<Result<Option<SaleRecord>, CallError>>,
    ) -> Vec<RecordReading> {
        let keys: Vec<SaleKeys> = ids.iter().map(SaleKeys::new).collect();
        let configs = cluster.read_all(&keys.iter().map(ReadConfig).collect::<Vec<_>>()).await;
        let known = self.known();
        // The reading of each record that needs no confirmation.
        let unchanged = |(id, config): (&SaleId, Result<Option<SaleConfig>, _>)| match config {
            Ok(Some(config)) => {
                known.get(id).filter(|known| *known.sale.config == config).cloned().map(Some).map(Ok)
            }
            Ok(None) => Some(Ok(None)),
            Err(error) => Some(Err(error)),
        };
        let unchanged: Vec<Option<RecordReading>> = ids.iter().zip(configs).map(unchanged).collect();

        let changed = keys.iter().zip(&unchanged).filter(|(_, reading)| reading.is_none());
        let changed: Vec<_> = changed.map(|(keys, _)| recall(keys)).collect();
        let mut confirmed = if changed.is_empty() { Vec::new() } else { confirm(&changed).await }.into_iter();
        let mut readings = Vec::with_capacity(ids.len());
        for reading in unchanged {
            readings.push(match reading {
                Some(reading) => reading,
                None => {
                    self.remember_confirmed(confirmed.next().expect("one reply for each changed record"))
                        .await
                }
            });
        }
        readings
    }

    async fn remember_confirmed(&self, confirmed: Result<Option<SaleRecord>, CallError>) -> RecordReading {
        let reading = self.to_desired_state(confirmed?).await?;
        reading.iter().for_each(|desired| self.remember(desired));
        Ok(reading)
    }

    async fn to_desired_state(&self, record: Option<SaleRecord>) -> RecordReading {
        let Some(SaleRecord { config, mint }) = record else { return Ok(None) };
        let sale = self.sale(config).await.map_err(|invalid| CallError::Malformed(invalid.to_string()))?;
        Ok(Some(DesiredState { sale, mint }))
    }

    /// Writes the record of a sale together with the entry of its history, unless its version is no longer `based_on`.
    ///
    /// # Errors
    /// Fails when it is unknown whether the record was written, or whether it is durable.
    pub async fn record(
        &self,
        based_on: u64,
        desired: &DesiredState,
        entry: &HistoryEntry,
    ) -> Result<RecordAnswer, CallError> {
        let (keys, config) = (SaleKeys::new(desired.sale.id()), &desired.sale.config);
        let record = Record { keys: &keys, based_on, config, mint: &desired.mint, entry };
        let recorded = self.writes.write(record).await?;
        if recorded == RecordAnswer::Done {
            self.remember(desired);
        }
        Ok(recorded)
    }

    /// Builds the sale of a config.
    ///
    /// # Errors
    /// Fails when the config is not valid for a sale.
    pub async fn sale(&self, config: SaleConfig) -> Result<Sale, InvalidSale> {
        match self.known().get(&config.id) {
            Some(known) if known.sale.config.layout == config.layout => known.sale.at(config),
            _ => build_sale(config).await,
        }
    }

    fn remember(&self, desired: &DesiredState) {
        let (id, desired) = (desired.sale.id().clone(), desired.clone());
        self.known.send_modify(|known| drop(Arc::make_mut(known).insert(id, desired)));
    }
}

const fn recall(keys: &SaleKeys) -> Recall<'_> {
    Recall { keys }
}

async fn build_sale(config: SaleConfig) -> Result<Sale, InvalidSale> {
    let building = tokio::task::spawn_blocking(|| Sale::new(config));
    building.await.expect("building a sale does not panic, and is not cancelled")
}
