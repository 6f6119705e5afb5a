//! The shards of a restored sale: made, filled with the imported orders and the free units, verified, and recorded.

use anyhow::{Context as _, bail, ensure};
use rediscluster::{CallError, Cluster};
use serde_json::json;
use service::time::now;
use stock::calls::{Accept, Configure, Configured, Level, Record, RecordAnswer, TokenSource};
use stock::history::{ChangeOrigin, HistoryEntry};
use stock::import::{IMPORTS_PER_CALL_MAX, Import, ImportedOrder};
use stock::layout::{SaleKeys, Shard};
use stock::sale::{LayoutConfig, Sale, SaleConfig, SaleState};
use stock::search::shards_of;
use stock::snapshot::{Confirm, Confirmed, read_levels};
use stock::store::{AddSaleToList, ReadConfig};

use super::Refusal;
use super::books::{LedgerOrder, Plan};

/// The part of a restored sale that Redis has.
pub(super) enum Found {
    /// None.
    Nothing,
    /// Shards of the plan.
    Begun,
    /// The record of the plan.
    Restored(Box<SaleConfig>),
}

/// Searches the whole cluster for the sale.
///
/// # Errors
/// Refuses when the cluster has anything of the sale that is not of this plan.
pub(super) async fn find(
    cluster: &Cluster,
    latest: &SaleConfig,
    plan: Option<&Plan>,
) -> anyhow::Result<Found> {
    let id = &latest.id;
    let record = cluster.read(ReadConfig(&SaleKeys::new(id))).await.context("the record of the sale")?;
    if let Some(config) = record {
        // A later version is a change by an operator, who has taken the restored sale over.
        let is_planned = |plan: &Plan| {
            plan.config.layout.fingerprint == config.layout.fingerprint
                && plan.config.version + 1 == config.version
        };
        if plan.is_some_and(is_planned) {
            return Ok(Found::Restored(Box::new(config)));
        }
        let is_same = latest.layout.creation == config.layout.creation;
        let creation = if is_same { "the same creation" } else { "another creation" };
        let SaleConfig { version, state, .. } = config;
        return Err(Refusal::Exists { id: id.clone(), version, state: state.as_str(), creation }.into());
    }
    let planned = plan.map(|plan| Sale::new(plan.config.clone())).transpose()?;
    let planned = planned.iter().flat_map(Sale::shards).map(|shard| &shard.meta).collect::<Vec<_>>();
    let (own, others): (Vec<String>, Vec<String>) =
        shards_of(cluster, id).await?.into_iter().partition(|meta| planned.contains(&meta));
    match (own.is_empty(), others.is_empty()) {
        (_, false) => Err(Refusal::ShardsExist(others).into()),
        (true, true) => Ok(Found::Nothing),
        (false, true) => Ok(Found::Begun),
    }
}

/// The new shards while they are filled.
pub(super) struct NewShards {
    pub(super) sale: Sale,
    /// Imported orders of each shard.
    imported: Vec<u64>,
}

impl NewShards {
    /// Makes the shards, or finds those that an interrupted restore made.
    pub(super) async fn make(cluster: &Cluster, plan: &Plan) -> anyhow::Result<Self> {
        let sale = Sale::new(plan.config.clone())?;
        let wanted = sale.config.shard_settings();
        let configured = configure(cluster, &sale).await?;
        for (shard, held) in sale.shards().iter().zip(&configured) {
            let differences = held.settings.differences(wanted);
            ensure!(differences.is_empty(), "shard {}: {}", shard.id, differences.join("; "));
        }
        let incarnations = configured.into_iter().map(|held| held.incarnation).collect();
        let layout = LayoutConfig { incarnations, ..sale.config.layout.clone() };
        // From here on each call names the incarnation: a shard that is lost and made again refuses it.
        let sale = sale.at(SaleConfig { layout, ..(*sale.config).clone() })?;
        Ok(Self { imported: vec![0; sale.shards().len()], sale })
    }

    pub(super) fn count(&self) -> usize {
        self.imported.len()
    }

    /// Imports orders into their home shards. They are on all replicas afterwards.
    pub(super) async fn import(&mut self, cluster: &Cluster, orders: Vec<LedgerOrder>) -> anyhow::Result<()> {
        let mut by_home: Vec<Vec<ImportedOrder>> = vec![Vec::new(); self.count()];
        for LedgerOrder { order, .. } in orders {
            by_home[self.sale.ring().home(&order.user).index()].push(order);
        }
        let homes = self.sale.shards().iter().zip(&by_home);
        let calls: Vec<Import<'_>> = homes
            .flat_map(|(shard, orders)| {
                orders.chunks(IMPORTS_PER_CALL_MAX).map(move |orders| Import { shard, orders })
            })
            .collect();
        for (call, answer) in calls.iter().zip(cluster.write_all(&calls).await) {
            answer.with_context(|| format!("shard {} did not take its orders", call.shard.id))?;
        }
        for (imported, orders) in self.imported.iter_mut().zip(&by_home) {
            *imported += orders.len() as u64;
        }
        Ok(())
    }

    /// Mints the free units, and verifies that each shard has exactly its orders and its part of them. Returns the units
    /// sold and the latest entry of each shard.
    pub(super) async fn fill(&self, cluster: &Cluster) -> anyhow::Result<Vec<Confirmed>> {
        let mint = self.mint();
        let accept = |(shard, &cumulative): (_, &u64)| Accept { shard, from: TokenSource::Mint, cumulative };
        let calls: Vec<Accept<'_>> = self.sale.shards().iter().zip(&mint).map(accept).collect();
        for (call, answer) in calls.iter().zip(cluster.write_all(&calls).await) {
            answer.with_context(|| format!("shard {} did not take its units", call.shard.id))?;
        }
        let calls: Vec<Confirm<'_>> = self.sale.shards().iter().map(|shard| Confirm { shard }).collect();
        let confirmed: Vec<Confirmed> =
            cluster.write_all(&calls).await.into_iter().collect::<Result<_, _>>()?;
        let levels = read_levels(cluster, &self.sale).await;
        for ((shard, level), (imported, minted)) in
            self.sale.shards().iter().zip(levels).zip(self.imported.iter().zip(mint))
        {
            verify(shard, level, *imported, minted)?;
        }
        Ok(confirmed)
    }

    /// Tokens ever minted to each shard: one for each imported order, and its part of the free ones.
    fn mint(&self) -> Vec<u64> {
        let free = self.sale.config.total_stock - self.imported.iter().sum::<u64>();
        self.imported.iter().zip(self.sale.split(free)).map(|(imported, free)| imported + free).collect()
    }

    /// Writes the record of the sale in this state, and adds the sale to the list. Returns the record.
    pub(super) async fn record(&self, cluster: &Cluster, state: SaleState) -> anyhow::Result<SaleConfig> {
        let creating = &*self.sale.config;
        let config = SaleConfig { version: creating.version + 1, state, ..creating.clone() };
        let orders: u64 = self.imported.iter().sum();
        let values = json!({ "orders": orders, "units": config.total_stock - orders });
        let reason = Some("restored from the ledger".to_owned());
        let entry = HistoryEntry {
            version: config.version,
            at: now(),
            change: "restore".to_owned(),
            values: values.as_object().cloned().unwrap_or_default(),
            origin: ChangeOrigin { reason, ..ChangeOrigin::default() },
        };
        let keys = SaleKeys::new(&config.id);
        let record = Record { keys: &keys, based_on: 0, config: &config, mint: &self.mint(), entry: &entry };
        match cluster.write(record).await.context("the record of the sale")? {
            RecordAnswer::Done => Ok(config),
            RecordAnswer::Overtaken(_) => bail!("a coordinator has created a sale of this name meanwhile"),
        }
    }
}

/// Lists the recorded sale, and brings its shards to the record. Both may have been done before.
pub(super) async fn settle(cluster: &Cluster, record: &SaleConfig) -> anyhow::Result<()> {
    cluster.write(AddSaleToList(&record.id)).await.context("the list of sales")?;
    let sale = Sale::new(record.clone())?;
    configure(cluster, &sale).await?;
    Ok(())
}

async fn configure(cluster: &Cluster, sale: &Sale) -> anyhow::Result<Vec<Configured>> {
    let SaleConfig { version, state, window, .. } = *sale.config;
    let call = |shard| Configure { shard, version, state, window };
    let calls: Vec<Configure<'_>> = sale.shards().iter().map(call).collect();
    let answers = cluster.write_all(&calls).await.into_iter().zip(&calls);
    let named = |(answer, call): (Result<_, CallError>, &Configure<'_>)| {
        answer.with_context(|| format!("shard {} did not take its settings", call.shard.id))
    };
    answers.map(named).collect()
}

fn verify(shard: &Shard, level: Result<Level, CallError>, imported: u64, minted: u64) -> anyhow::Result<()> {
    let level = level.with_context(|| format!("shard {}", shard.id))?;
    ensure!(shard.accepts(&level.ring), "shard {} was lost and made again meanwhile", shard.id);
    let held = (level.sold, level.stock, level.accepted_from(TokenSource::Mint));
    let expected = (imported, minted - imported, minted);
    ensure!(
        held == expected && level.donated.is_empty(),
        "shard {} has sold, holds and got {held:?} units instead of {expected:?}; delete the keys of the sale, and \
         restore it again",
        shard.id
    );
    Ok(())
}
