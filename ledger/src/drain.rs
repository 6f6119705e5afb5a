//! Drains one sale: writes the orders of its shards into PostgreSQL, behind a barrier.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rediscluster::{CallError, Cluster};
use stock::archive::NoteDrained;
use stock::layout::Shard;
use stock::sale::{Sale, SaleState};
use stock::snapshot::Confirmed;
use tokio::time::Instant;

use crate::shard_reader::{self, Batch, ORDERS_PER_BATCH_MAX, ReadError};
use crate::writer::{Cursor, WriteError, Writer};

/// Time between two tries of a shard that contradicts the ledger. A person may have resolved it.
const CONFLICT_RETRY: Duration = Duration::from_secs(5);

/// Time between two records of how many units a sale has sold.
const SIGHTING_PERIOD: Duration = Duration::from_secs(1);

/// Most batches of one shard in one round, so that all sales proceed.
const BATCHES_PER_ROUND: usize = 16;

/// Most orders that are read at a time, unless a single batch has more. It bounds the memory, and the size of a reply: 2 MB
/// arrive in time over a slow network, too.
const ORDERS_PER_READ: u64 = 16_384;

/// Most orders in a statement, unless a single batch has more. PostgreSQL takes some 20 us for each, so other statements
/// wait for less than a tenth of a second.
const ORDERS_PER_STATEMENT: u64 = 4_096;

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
    /// When there were new orders.
    pub(crate) news_at: Option<Instant>,
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
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
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
        Ok(Self { sale, news_at: None, shards, complete_at: now, sighting_due_at: now })
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
        let news = sale.shards().iter().zip(self.shards.iter().zip(&progress));
        let news = news.filter(|(_, (state, progress))| has_news(state, progress));
        let mut due: Vec<&Shard> = news.map(|(shard, _)| shard).collect();
        if !due.is_empty() {
            self.news_at = Some(now);
        }
        for _ in 0..BATCHES_PER_ROUND {
            let mut unfinished = Vec::new();
            let behind: Vec<u64> = self.shards.iter().map(ShardState::behind).collect();
            let most = |shard: &&Shard| behind[shard.id.index()].min(ORDERS_PER_BATCH_MAX);
            for shards in groups(&due, ORDERS_PER_READ, most) {
                unfinished.extend(self.drain(cluster, writer, &sale, shards).await?);
            }
            due = unfinished;
        }
        if self.behind() == 0 {
            self.complete_at = Instant::now();
        }
        Ok(())
    }

    /// Writes the next batch of each of these shards. Returns the shards that have more.
    async fn drain<'a>(
        &mut self,
        cluster: &Cluster,
        writer: &Writer,
        sale: &Sale,
        shards: &[&'a Shard],
    ) -> Result<Vec<&'a Shard>, WriteError> {
        let (closed, open): (Vec<&Shard>, Vec<&Shard>) =
            shards.iter().copied().partition(|shard| self.shards[shard.id.index()].cursor.is_closed);
        for shard in closed {
            self.note(sale, shard, Err(ShardError::Replaced));
        }
        let reads: Vec<_> =
            open.iter().map(|&shard| (shard, self.shards[shard.id.index()].cursor.seq)).collect();
        let mut batches = Vec::new();
        for (shard, read) in open.into_iter().zip(shard_reader::batches(cluster, &reads).await) {
            match read {
                // A failover has taken the news back.
                Ok(batch) if batch.orders.is_empty() => self.note(sale, shard, Ok(())),
                Ok(batch) => batches.push(batch),
                Err(error) => self.note(sale, shard, Err(error.into())),
            }
        }
        for batches in groups(&batches, ORDERS_PER_STATEMENT, |batch| batch.orders.len() as u64) {
            match writer.write(sale, batches).await {
                // The others do not wait for the shard whose orders contradict the ledger.
                Err(WriteError::Conflict(_)) if batches.len() > 1 => {
                    for batch in batches.chunks(1) {
                        let written = writer.write(sale, batch).await;
                        self.take(sale, batch, written)?;
                    }
                }
                written => self.take(sale, batches, written)?,
            }
        }
        let has_more = |batch: &&Batch<'_>| {
            batch.has_more && self.shards[batch.shard.id.index()].cursor.seq == batch.until
        };
        Ok(batches.iter().filter(has_more).map(|batch| batch.shard).collect())
    }

    /// Takes the outcome of a statement.
    fn take(
        &mut self,
        sale: &Sale,
        batches: &[Batch<'_>],
        written: Result<BTreeSet<usize>, WriteError>,
    ) -> Result<(), WriteError> {
        match (written, batches) {
            (Ok(moved), _) => {
                for batch in batches.iter().filter(|batch| moved.contains(&batch.shard.id.index())) {
                    let cursor = &mut self.shards[batch.shard.id.index()].cursor;
                    cursor.seq = batch.until;
                    cursor.orders += batch.orders.len() as u64;
                    self.note(sale, batch.shard, Ok(()));
                }
                if moved.len() < batches.len() { Err(WriteError::Overtaken) } else { Ok(()) }
            }
            (Err(error @ WriteError::Conflict(_)), [batch]) => {
                self.note(sale, batch.shard, Err(error.into()));
                Ok(())
            }
            (Err(error), _) => Err(error),
        }
    }

    fn note(&mut self, sale: &Sale, shard: &Shard, drained: Result<(), ShardError>) {
        self.shards[shard.id.index()].note(sale, shard, drained);
    }

    /// Notes in each shard how far the ledger is, so that the sale can be archived. PostgreSQL is asked first: it may have
    /// been restored from a backup since the latest order.
    ///
    /// # Errors
    /// Fails when PostgreSQL does not answer, or its cursors are elsewhere.
    pub(crate) async fn note_in_shards(&self, cluster: &Cluster, writer: &Writer) -> Result<(), WriteError> {
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

    fn note(&mut self, sale: &Sale, shard: &Shard, drained: Result<(), ShardError>) {
        let stood = self.conflict_until.take().is_some();
        let shard = shard.id.index();
        match drained {
            Ok(()) => {
                if stood {
                    tracing::info!(sale.id = %sale.id(), shard, "the shard's orders are written again");
                }
            }
            // The next round reads on; an unreachable primary is in the cluster's own metrics.
            Err(ShardError::Read(ReadError::Redis(error))) => {
                tracing::debug!(sale.id = %sale.id(), shard, %error, "orders not read");
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

/// Splits items into groups of at most this weight, unless a single item has more.
fn groups<T>(items: &[T], most: u64, weight: impl Fn(&T) -> u64) -> impl Iterator<Item = &[T]> {
    let mut total = None;
    items.chunk_by(move |item, next| {
        let sum = total.unwrap_or_else(|| weight(item)) + weight(next);
        total = (sum <= most).then_some(sum);
        total.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_at_most_the_weight() {
        let split = |items: &[u64]| Vec::from_iter(groups(items, 10, |&item| item).map(<[u64]>::to_vec));
        assert_eq!(split(&[4, 6, 1, 9, 2]), [vec![4, 6], vec![1, 9], vec![2]]);
        assert_eq!(split(&[11, 3, 20, 0]), [vec![11], vec![3], vec![20], vec![0]]);
        assert_eq!(split(&[]), Vec::<Vec<u64>>::new());
    }
}
