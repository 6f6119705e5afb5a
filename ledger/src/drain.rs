//! Drains one sale: writes the orders of its shards into PostgreSQL, behind a barrier.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rediscluster::{CallError, Cluster};
use stock::archive::NoteDrained;
use stock::layout::Shard;
use stock::sale::{Sale, SaleState};
use stock::snapshot::Confirmed;
use tokio::time::Instant;

use crate::shard_reader::{self, Batch};
use crate::writer::{Cursor, WriteError, Writer};

/// Time between two tries of a shard that contradicts the ledger. A person may have resolved it.
const CONFLICT_RETRY: Duration = Duration::from_secs(5);

/// Time between two records of how many units a sale has sold.
const SIGHTING_PERIOD: Duration = Duration::from_secs(1);

/// Most batches of one shard in one round, so that all shards proceed.
const BATCHES_PER_ROUND: usize = 16;

/// How far a sale is drained.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Orders in Redis that are not in PostgreSQL.
    pub behind: u64,
    /// The same for each shard. Empty when the sale has ended and is drained.
    pub shards: Vec<u64>,
    /// Time since there were none.
    pub behind_for: Duration,
    /// Shards that stand still.
    pub conflicts: u64,
}

/// The state of one sale's drain.
pub(crate) struct SaleDrain {
    pub(crate) sale: Arc<Sale>,
    shards: Vec<ShardState>,
    complete_at: Instant,
    sighting_due_at: Instant,
}

#[derive(Clone, Copy, Default)]
struct ShardState {
    cursor: Cursor,
    /// Units sold, as last seen.
    sold: u64,
    /// Set while the shard stands still.
    conflict_until: Option<Instant>,
}

/// Why a shard's drain did not finish.
#[derive(Debug, thiserror::Error)]
enum ShardError {
    #[error(transparent)]
    Redis(#[from] CallError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the shard has {confirmed} entries, and {drained} are in the ledger: Redis has lost data")]
    ShorterThanLedger { confirmed: u64, drained: u64 },
    #[error("entries after {0} are missing in the order stream")]
    MissingEntries(u64),
    #[error("a restore of the sale has replaced the shard; its Redis servers must not be used any more")]
    Replaced,
}

impl SaleDrain {
    /// Opens the cursors of a sale.
    pub(crate) async fn open(sale: Arc<Sale>, writer: &Writer) -> Result<Self, WriteError> {
        writer.record_version(&sale).await?;
        let cursors = writer.open_cursors(&sale).await?;
        let shards =
            cursors.into_iter().map(|cursor| ShardState { cursor, ..ShardState::default() }).collect();
        let now = Instant::now();
        Ok(Self { sale, shards, complete_at: now, sighting_due_at: now })
    }

    /// Opens the cursors again: another ledger may have moved them.
    pub(crate) async fn reopen(&mut self, writer: &Writer) -> Result<(), WriteError> {
        let cursors = writer.open_cursors(&self.sale).await?;
        for (state, cursor) in self.shards.iter_mut().zip(cursors) {
            state.cursor = cursor;
        }
        Ok(())
    }

    /// Takes a changed configuration of the same sale.
    pub(crate) async fn update(&mut self, sale: Arc<Sale>, writer: &Writer) -> Result<(), WriteError> {
        writer.record_version(&sale).await?;
        self.sale = sale;
        Ok(())
    }

    /// Drains every shard that has new orders.
    ///
    /// # Errors
    /// Fails when PostgreSQL does not answer. The cursors must be opened again then.
    pub(crate) async fn round(&mut self, cluster: &Cluster, writer: &Writer) -> Result<(), WriteError> {
        let now = Instant::now();
        let sale = Arc::clone(&self.sale);
        let progress = self.look(cluster).await;
        if self.sighting_due_at <= now && progress.iter().all(Result::is_ok) {
            writer.record_sighting(&sale, self.shards.iter().map(|state| state.sold).sum()).await?;
            self.sighting_due_at = now + SIGHTING_PERIOD;
        }
        let has_news = |state: &ShardState, progress: &Result<Confirmed, CallError>| {
            let stands = state.conflict_until.is_some_and(|until| now < until);
            !stands && progress.as_ref().is_ok_and(|progress| progress.seq != state.cursor.seq)
        };
        let shards: Vec<&Shard> = sale
            .shards()
            .iter()
            .zip(self.shards.iter().zip(&progress))
            .filter(|(_, (state, progress))| has_news(state, progress))
            .map(|(shard, _)| shard)
            .collect();
        let confirmed = shard_reader::confirmed(cluster, &shards).await;
        let draining = shards.iter().zip(confirmed).map(async |(shard, confirmed)| {
            let mut cursor = self.shards[shard.id.index()].cursor;
            let drained = match confirmed {
                Ok(confirmed) => drain(cluster, writer, &sale, shard, &mut cursor, confirmed.seq).await,
                Err(error) => Err(error.into()),
            };
            (shard.id.index(), cursor, drained)
        });
        let drained = join_all(draining).await;
        let mut failure = None;
        for (shard, cursor, drained) in drained {
            self.shards[shard].cursor = cursor;
            self.shards[shard].note(&sale, shard, drained, &mut failure);
        }
        if self.behind() == 0 {
            self.complete_at = Instant::now();
        }
        failure.map_or(Ok(()), Err)
    }

    /// Notes in each shard how far the ledger is, so that the sale can be archived. PostgreSQL is asked first: it may have
    /// been restored from a backup since the latest order.
    ///
    /// # Errors
    /// Fails when PostgreSQL does not answer, or its cursors are elsewhere.
    pub(crate) async fn note(&self, cluster: &Cluster, writer: &Writer) -> Result<(), WriteError> {
        let cursors = writer.open_cursors(&self.sale).await?;
        if self.shards.iter().zip(&cursors).any(|(state, cursor)| state.cursor != *cursor) {
            return Err(WriteError::Overtaken);
        }
        let shards = self.sale.shards().iter().zip(&cursors).filter(|(_, cursor)| !cursor.is_closed);
        let calls: Vec<_> = shards.map(|(shard, cursor)| NoteDrained { shard, seq: cursor.seq }).collect();
        for error in cluster.poll_all(&calls).await.into_iter().filter_map(Result::err) {
            // The next round notes it again.
            tracing::debug!(sale.id = %self.sale.id(), %error, "not noted in a shard that the ledger has its orders");
        }
        Ok(())
    }

    /// Leaves out what is not written, because the orders of an archived sale have left Redis.
    pub(crate) fn end(&mut self) {
        for state in &mut self.shards {
            state.sold = state.cursor.orders;
            state.conflict_until = None;
        }
    }

    /// Reads how many units the shards have sold, and writes nothing.
    pub(crate) async fn look(&mut self, cluster: &Cluster) -> Vec<Result<Confirmed, CallError>> {
        let progress = shard_reader::progress(cluster, &self.sale).await;
        for (state, progress) in self.shards.iter_mut().zip(&progress) {
            if let Ok(Confirmed { sold, .. }) = progress {
                state.sold = *sold;
            }
        }
        progress
    }

    /// Returns true when the sale has ended and all its orders are in PostgreSQL.
    pub(crate) fn rests(&self) -> bool {
        let is_drained = |state: &ShardState| state.behind() == 0 && state.conflict_until.is_none();
        self.sale.config.state == SaleState::Ended && self.shards.iter().all(is_drained)
    }

    /// Returns how far the sale is drained.
    pub(crate) fn progress(&self) -> Progress {
        let behind = self.behind();
        let shards = if self.rests() { &[][..] } else { &self.shards };
        let shards = shards.iter().map(ShardState::behind).collect();
        let behind_for = if behind == 0 { Duration::ZERO } else { self.complete_at.elapsed() };
        let conflicts = self.shards.iter().filter(|state| state.conflict_until.is_some()).count() as u64;
        Progress { behind, shards, behind_for, conflicts }
    }

    /// Orders in Redis that are not in PostgreSQL.
    pub(crate) fn behind(&self) -> u64 {
        self.shards.iter().map(ShardState::behind).sum()
    }
}

impl ShardState {
    fn behind(&self) -> u64 {
        self.sold.saturating_sub(self.cursor.orders)
    }

    fn note(
        &mut self,
        sale: &Sale,
        shard: usize,
        drained: Result<(), ShardError>,
        failure: &mut Option<WriteError>,
    ) {
        let stood = self.conflict_until.take().is_some();
        match drained {
            Ok(()) => {
                if stood {
                    tracing::info!(sale.id = %sale.id(), shard, "the shard's orders are written again");
                }
            }
            // The next round reads on; an unreachable primary is in the cluster's own metrics.
            Err(ShardError::Redis(error)) => {
                tracing::debug!(sale.id = %sale.id(), shard, %error, "orders not read");
            }
            Err(ShardError::Write(
                error @ (WriteError::Overtaken | WriteError::Database(_) | WriteError::Late),
            )) => {
                *failure = Some(error);
            }
            Err(error) => {
                self.conflict_until = Some(Instant::now() + CONFLICT_RETRY);
                if !stood {
                    let reason = format!("{:#}", anyhow::Error::from(error));
                    tracing::error!(sale.id = %sale.id(), shard, reason, "the shard's orders are not written");
                }
            }
        }
    }
}

/// Writes the orders of a shard up to `until`, batch by batch.
async fn drain(
    cluster: &Cluster,
    writer: &Writer,
    sale: &Sale,
    shard: &Shard,
    cursor: &mut Cursor,
    until: u64,
) -> Result<(), ShardError> {
    if cursor.is_closed {
        return Err(ShardError::Replaced);
    }
    if until < cursor.seq {
        return Err(ShardError::ShorterThanLedger { confirmed: until, drained: cursor.seq });
    }
    for _ in 0..BATCHES_PER_ROUND {
        if cursor.seq >= until {
            return Ok(());
        }
        let batch = shard_reader::batch(cluster, shard, cursor.seq, until).await?;
        let Batch { orders, until } = batch.ok_or(ShardError::MissingEntries(cursor.seq))?;
        *cursor = writer.write(sale, shard, *cursor, until, &orders).await?;
    }
    Ok(())
}
