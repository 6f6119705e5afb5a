//! All sales and their drains.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use rediscluster::{CallError, Cluster};
use stock::history::ReadHistory;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::{Sale, SaleConfig};
use stock::store::{ListSales, ReadConfig};
use tokio::time::Instant;

use crate::drain::{Progress, SaleDrain};
use crate::writer::{WriteError, Writer};

/// Time between two reads of the list of sales and their configurations.
const CONFIGS_PERIOD: Duration = Duration::from_secs(1);

/// First and longest time between two looks at a sale that has ended and is drained; each is twice the one before.
/// Coordinators ignore notes that are older than a minute.
const ENDED_PERIOD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Why a round was not finished.
#[derive(Debug)]
pub(crate) enum RoundError {
    /// The list of sales could not be read. The known sales were drained.
    Redis(CallError),
    /// PostgreSQL does not answer.
    Write(WriteError),
}

/// The drains of all sales.
#[derive(Default)]
pub(crate) struct Sales {
    drains: BTreeMap<SaleId, Drained>,
    /// When the configurations are read again; `None` at once.
    configs_due_at: Option<Instant>,
}

struct Drained {
    drain: SaleDrain,
    due_at: Instant,
    /// Time until the next look, once the sale has ended and is drained.
    rest: Duration,
    /// Version up to which the changes of the sale are recorded.
    changes_until: u64,
}

impl Sales {
    /// Drains each sale that is due.
    pub(crate) async fn round(&mut self, cluster: &Cluster, writer: &Writer) -> Result<(), RoundError> {
        let followed = match self.configs_due_at {
            Some(due_at) if Instant::now() < due_at => Ok(()),
            _ => self.follow_all(cluster, writer).await,
        };
        if let Err(error @ RoundError::Write(_)) = followed {
            return Err(error);
        }
        for Drained { drain, due_at, rest, changes_until } in self.drains.values_mut() {
            if *due_at > Instant::now() {
                continue;
            }
            if *changes_until != drain.sale.config.version {
                let recorded = record_changes(cluster, writer, &drain.sale).await;
                if recorded.map_err(RoundError::Write)? {
                    *changes_until = drain.sale.config.version;
                }
            }
            if drain.sale.config.archive.is_some() {
                drain.end();
                *due_at = Instant::now() + ENDED_PERIOD.1;
                continue;
            }
            match drain_and_note(drain, cluster, writer).await {
                Ok(()) => {}
                // Another ledger is at work, too.
                Err(WriteError::Overtaken) => drain.reopen(writer).await.map_err(RoundError::Write)?,
                Err(error) => return Err(RoundError::Write(error)),
            }
            if drain.rests() {
                *due_at = Instant::now() + *rest;
                *rest = (*rest * 2).min(ENDED_PERIOD.1);
            } else {
                (*due_at, *rest) = (Instant::now(), ENDED_PERIOD.0);
            }
        }
        followed
    }

    /// Opens the cursors of all known sales over a new connection.
    pub(crate) async fn reopen(&mut self, writer: &Writer) -> Result<(), WriteError> {
        for Drained { drain, .. } in self.drains.values_mut() {
            drain.reopen(writer).await?;
        }
        Ok(())
    }

    /// Reads how many units were sold, while nothing can be written.
    pub(crate) async fn look(&mut self, cluster: &Cluster) {
        for Drained { drain, .. } in self.drains.values_mut() {
            drain.look(cluster).await;
        }
    }

    /// Returns when any sale had new orders.
    pub(crate) fn latest_news(&self) -> Option<Instant> {
        self.drains.values().filter_map(|drained| drained.drain.news_at).max()
    }

    /// Returns how far each sale is drained.
    pub(crate) fn progress(&self) -> impl Iterator<Item = (SaleId, Progress)> {
        self.drains.iter().map(|(id, Drained { drain, .. })| (id.clone(), drain.progress()))
    }

    /// Follows the configurations of all sales.
    async fn follow_all(&mut self, cluster: &Cluster, writer: &Writer) -> Result<(), RoundError> {
        let (listed, configs) = read_configs(cluster).await.map_err(RoundError::Redis)?;
        // A sale that is no longer listed, and has orders that were not written, may be listed again.
        if let Some(listed) = listed {
            self.drains.retain(|id, drained| listed.contains(id) || drained.drain.behind() > 0);
        }
        for config in configs {
            self.follow(config, writer).await.map_err(RoundError::Write)?;
        }
        self.configs_due_at = Some(Instant::now() + CONFIGS_PERIOD);
        Ok(())
    }

    async fn follow(&mut self, config: SaleConfig, writer: &Writer) -> Result<(), WriteError> {
        // Shards of a sale that is being created have no incarnation yet, and nothing is sold.
        if config.layout.incarnations.is_empty() {
            return Ok(());
        }
        match self.drains.entry(config.id.clone()) {
            Entry::Occupied(mut entry) if entry.get().drain.sale.config.layout == config.layout => {
                let Drained { drain, due_at, rest, .. } = entry.get_mut();
                if drain.sale.config.version != config.version
                    && let Ok(sale) = drain.sale.at(config)
                {
                    drain.update(Arc::new(sale), writer).await?;
                    (*due_at, *rest) = (Instant::now(), ENDED_PERIOD.0);
                }
            }
            entry => {
                // A layout of another release cannot be read; a ledger of that release drains it.
                if let Ok(sale) = Sale::new(config) {
                    let drain = SaleDrain::open(Arc::new(sale), writer).await?;
                    let (due_at, rest) = (Instant::now(), ENDED_PERIOD.0);
                    entry.insert_entry(Drained { drain, due_at, rest, changes_until: 0 });
                }
            }
        }
        Ok(())
    }
}

/// Drains a sale. Notes in its shards how far the ledger is, when the sale has ended and is drained.
async fn drain_and_note(drain: &mut SaleDrain, cluster: &Cluster, writer: &Writer) -> Result<(), WriteError> {
    drain.round(cluster, writer).await?;
    if drain.rests() { drain.note_in_shards(cluster, writer).await } else { Ok(()) }
}

/// Records the changes of a sale. Returns false when Redis does not answer; the next round tries again.
async fn record_changes(cluster: &Cluster, writer: &Writer, sale: &Sale) -> Result<bool, WriteError> {
    match cluster.read(ReadHistory(&SaleKeys::new(sale.id()))).await {
        Ok(changes) => writer.record_changes(sale, &changes).await.map(|()| true),
        Err(error) => {
            tracing::debug!(sale.id = %sale.id(), %error, "changes not read");
            Ok(false)
        }
    }
}

/// Reads the list of sales, unless it is lost, and their configurations.
async fn read_configs(cluster: &Cluster) -> Result<(Option<Vec<SaleId>>, Vec<SaleConfig>), CallError> {
    let listed = cluster.read(ListSales).await?;
    let keys: Vec<SaleKeys> = listed.iter().flatten().map(SaleKeys::new).collect();
    let calls: Vec<ReadConfig<'_>> = keys.iter().map(ReadConfig).collect();
    let configs = cluster.poll_all(&calls).await;
    // A config that cannot be read now is read in the next round.
    let configs = configs.into_iter().filter_map(|config| config.ok().flatten()).collect();
    Ok((listed, configs))
}
