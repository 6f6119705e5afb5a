//! All sales and their drains.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use rediscluster::{CallError, Cluster};
use stock::history::ReadHistory;
use stock::ids::SaleId;
use stock::layout::SaleKeys;
use stock::sale::{Sale, SaleConfig, SaleState};
use stock::store::{ListSales, ReadConfig};
use tokio::time::Instant;

use crate::drain::{Progress, SaleDrain};
use crate::writer::{WriteError, Writer};

/// Time between two looks at a sale that has ended and is drained.
const ENDED_PERIOD: Duration = Duration::from_secs(5);

/// Why a round was not finished.
#[derive(Debug)]
pub(crate) enum RoundError {
    /// The list of sales could not be read. The known sales were drained.
    Redis(CallError),
    /// PostgreSQL does not answer.
    Write(WriteError),
}

/// The drains of all sales that were ever listed.
#[derive(Default)]
pub(crate) struct Sales(BTreeMap<SaleId, Drained>);

struct Drained {
    drain: SaleDrain,
    due_at: Instant,
    /// Version up to which the changes of the sale are recorded.
    changes_until: u64,
}

impl Sales {
    /// Drains each sale that is due.
    pub(crate) async fn round(&mut self, cluster: &Cluster, writer: &Writer) -> Result<(), RoundError> {
        let followed = match read_configs(cluster).await {
            Ok(configs) => {
                for config in configs {
                    self.follow(config, writer).await.map_err(RoundError::Write)?;
                }
                Ok(())
            }
            Err(error) => Err(RoundError::Redis(error)),
        };
        let mut overtaken = Vec::new();
        for (id, Drained { drain, due_at, changes_until }) in &mut self.0 {
            if *due_at > Instant::now() {
                continue;
            }
            if *changes_until != drain.sale.config.version {
                let recorded = record_changes(cluster, writer, &drain.sale).await;
                if recorded.map_err(RoundError::Write)? {
                    *changes_until = drain.sale.config.version;
                }
            }
            // Its shards are gone.
            if drain.sale.config.archive.is_some() {
                *due_at = Instant::now() + ENDED_PERIOD;
                continue;
            }
            match drain_and_note(drain, cluster, writer).await {
                Ok(()) => {}
                Err(WriteError::Overtaken) => overtaken.push(id.clone()),
                Err(error) => return Err(RoundError::Write(error)),
            }
            let rests = rests(drain);
            *due_at = Instant::now() + if rests { ENDED_PERIOD } else { Duration::ZERO };
        }
        // Another ledger is at work, too. The cursors are read again.
        overtaken.into_iter().for_each(|id| drop(self.0.remove(&id)));
        followed
    }

    /// Returns how far each sale is drained.
    pub(crate) fn progress(&self) -> impl Iterator<Item = (SaleId, Progress)> {
        self.0.iter().map(|(id, Drained { drain, .. })| (id.clone(), drain.progress()))
    }

    async fn follow(&mut self, config: SaleConfig, writer: &Writer) -> Result<(), WriteError> {
        // Shards of a sale that is being created have no incarnation yet, and nothing is sold.
        if config.layout.incarnations.is_empty() {
            return Ok(());
        }
        match self.0.entry(config.id.clone()) {
            Entry::Occupied(mut entry) if entry.get().drain.sale.config.layout == config.layout => {
                let drain = &mut entry.get_mut().drain;
                if drain.sale.config.version != config.version
                    && let Ok(sale) = drain.sale.at(config)
                {
                    drain.update(Arc::new(sale), writer).await?;
                }
            }
            entry => {
                // A layout of another release cannot be read; a ledger of that release drains it.
                if let Ok(sale) = Sale::new(config) {
                    let drain = SaleDrain::open(Arc::new(sale), writer).await?;
                    entry.insert_entry(Drained { drain, due_at: Instant::now(), changes_until: 0 });
                }
            }
        }
        Ok(())
    }
}

/// Drains a sale. Notes in its shards how far the ledger is, when the sale has ended and is drained.
async fn drain_and_note(drain: &mut SaleDrain, cluster: &Cluster, writer: &Writer) -> Result<(), WriteError> {
    drain.round(cluster, writer).await?;
    if rests(drain) { drain.note(cluster, writer).await } else { Ok(()) }
}

/// Returns true if a sale has ended and is drained.
fn rests(drain: &SaleDrain) -> bool {
    drain.sale.config.state == SaleState::Ended && drain.progress() == Progress::default()
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

async fn read_configs(cluster: &Cluster) -> Result<Vec<SaleConfig>, CallError> {
    let ids = cluster.read(ListSales).await?.unwrap_or_default();
    let keys: Vec<SaleKeys> = ids.iter().map(SaleKeys::new).collect();
    let calls: Vec<ReadConfig<'_>> = keys.iter().map(ReadConfig).collect();
    let configs = cluster.poll_all(&calls).await;
    // A config that cannot be read now is read in the next round.
    Ok(configs.into_iter().filter_map(|config| config.ok().flatten()).collect())
}
