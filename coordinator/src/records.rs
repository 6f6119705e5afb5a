//! Reads and writes what is recorded of sales.
//!
//! A ring takes milliseconds to work out, so each sale's is kept: its layout is frozen.

use std::collections::HashMap;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use stock::calls::{CallError, Record, Recorded};
use stock::cluster::Cluster;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::{InvalidSale, Sale, SaleConfig};
use stock::store::{ListSales, ReadConfig, ReadMint};

use crate::desired::Desired;

/// How often config and mint are read until they are of one version. Only a restock comes between them.
const READS_MAX: u32 = 5;

/// The records of all sales, as they are read.
#[derive(Default)]
pub struct Records {
    sales: Mutex<HashMap<SaleId, Sale>>,
}

/// A sale of the list, and what could be read of it; `None` for one that is listed but not recorded (yet).
pub type Listed = (SaleId, Result<Option<Desired>, CallError>);

impl Records {
    /// Reads all sales.
    ///
    /// # Errors
    /// When the list of sales cannot be read.
    pub async fn all(&self, cluster: &Cluster) -> Result<Vec<Listed>, CallError> {
        let ids = cluster.read(ListSales).await?.unwrap_or_default();
        let records = self.read(cluster, &ids).await.into_iter().map(|record| record?.map(whole).transpose());
        Ok(ids.iter().cloned().zip(records).collect())
    }

    /// Reads one sale; `None` where there is none of this name.
    ///
    /// # Errors
    /// When it cannot be read, or is not of a form that this release knows.
    pub async fn one(&self, cluster: &Cluster, id: &SaleId) -> Result<Option<Desired>, CallError> {
        let mut record = self.read_one(cluster, id).await?;
        for _ in 1..READS_MAX {
            if record.as_ref().is_none_or(Desired::is_whole) {
                break;
            }
            record = self.read_one(cluster, id).await?;
        }
        record.map(whole).transpose()
    }

    async fn read_one(&self, cluster: &Cluster, id: &SaleId) -> Result<Option<Desired>, CallError> {
        self.read(cluster, slice::from_ref(id)).await.pop().expect("one sale has one record")
    }

    /// Configs first, then mints: a change that is based on a config is refused if the mint is newer.
    async fn read(&self, cluster: &Cluster, ids: &[SaleId]) -> Vec<Result<Option<Desired>, CallError>> {
        let keys: Vec<SaleKeys> = ids.iter().map(SaleKeys::new).collect();
        let configs = cluster.read_all(&keys.iter().map(ReadConfig).collect::<Vec<_>>()).await;
        let shards = |config: &Result<Option<SaleConfig>, _>| match config {
            Ok(Some(config)) => config.layout.tags.len(),
            _ => 0,
        };
        let mints = keys.iter().zip(&configs).map(|(keys, config)| ReadMint { keys, shards: shards(config) });
        let mints = cluster.read_all(&mints.collect::<Vec<_>>()).await;
        join_all(configs.into_iter().zip(mints).map(async |(config, mint)| match config? {
            Some(config) => Ok(Some(Desired { sale: self.known_sale(config).await?, mint: mint? })),
            None => Ok(None),
        }))
        .await
    }

    async fn known_sale(&self, config: SaleConfig) -> Result<Sale, CallError> {
        self.sale(config).await.map_err(|invalid| CallError::Malformed(invalid.to_string()))
    }

    /// Records a sale, unless somebody else changed it since the version that this is based on.
    ///
    /// # Errors
    /// When it is unknown whether that was done, or whether it lasts.
    pub async fn record(
        &self,
        cluster: &Cluster,
        based_on: u64,
        desired: &Desired,
    ) -> Result<Recorded, CallError> {
        let (keys, config) = (SaleKeys::new(desired.sale.id()), &desired.sale.config);
        cluster.write(Record { keys: &keys, based_on, config, mint: &desired.mint }).await
    }

    /// The sale of a config.
    ///
    /// # Errors
    /// When no sale can have this config.
    pub async fn sale(&self, config: SaleConfig) -> Result<Sale, InvalidSale> {
        let known = self.known().get(&config.id).cloned();
        let sale = match known {
            Some(sale) if *sale.config == config => return Ok(sale),
            Some(sale) if sale.config.layout == config.layout => sale.at(config)?,
            _ => work_out(config).await?,
        };
        self.known().insert(sale.id().clone(), sale.clone());
        Ok(sale)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SaleId, Sale>> {
        self.sales.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(desired: Desired) -> Result<Desired, CallError> {
    let id = desired.sale.id();
    let torn = || CallError::Malformed(format!("config and mint of sale {id} do not add up"));
    if desired.is_whole() { Ok(desired) } else { Err(torn()) }
}

async fn work_out(config: SaleConfig) -> Result<Sale, InvalidSale> {
    let working_out = tokio::task::spawn_blocking(|| Sale::new(config));
    working_out.await.expect("working out a layout does not panic, and nothing cancels it")
}
