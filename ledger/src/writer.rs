//! Writes the orders of several shards with one statement.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use rediscluster::EpochMs;
use stock::history::HistoryEntry;
use stock::layout::Shard;
use stock::sale::{Sale, SaleConfig};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Statement};
use uuid::Uuid;

use crate::database::Database;
use crate::event::{self, Payload};
use crate::metrics;
use crate::shard_reader::Batch;

/// Moves the cursor of each shard, numbers the orders of those that it moved, and inserts them. A cursor that is
/// elsewhere stays, and so do its orders. Two such statements lock the position first, so neither waits for a cursor of
/// the other. The conflict target is named: without it, a second order of one user would be left out silently.
const WRITE: &str = "
    WITH held AS (
        SELECT FROM positions WHERE sale = $1 AND creation = $2 FOR UPDATE
    ), moved AS (
        UPDATE cursors SET seq = batch.until, orders = orders + batch.count, moved_at = now()
        FROM held, UNNEST($3::integer[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
            AS batch (shard, incarnation, after, until, count)
        WHERE cursors.sale = $1 AND cursors.creation = $2 AND cursors.shard = batch.shard
            AND cursors.incarnation = batch.incarnation AND seq = batch.after AND closed_at IS NULL
        RETURNING cursors.shard, cursors.incarnation, batch.count
    ), numbered AS (
        UPDATE positions SET position = position + (SELECT sum(count) FROM moved)::bigint
        WHERE sale = $1 AND creation = $2 AND EXISTS (SELECT FROM moved)
        RETURNING position
    ), placed AS (
        SELECT shard, incarnation, position - (sum(count) OVER (ORDER BY shard))::bigint AS before
        FROM moved, numbered
    ), written AS (
        INSERT INTO order_events (sale, creation, shard, incarnation, seq, n, position, id, aggregatetype, aggregateid,
            type, payload, user_id, at)
        SELECT $1, $2, shard, incarnation, row.seq, row.n, before + row.place, row.id, 'order', row.order_id,
            'order.purchased', row.payload::jsonb, row.user_id, to_timestamp(row.at / 1000.0)
        FROM placed JOIN UNNEST($8::integer[], $9::bigint[], $10::bigint[], $11::integer[], $12::uuid[], $13::text[],
            $14::text[], $15::text[], $16::bigint[]) AS row (shard, place, seq, n, id, order_id, payload, user_id, at)
            USING (shard)
        ON CONFLICT (sale, creation, shard, incarnation, seq, n) DO NOTHING
    )
    SELECT shard FROM moved";

const OPEN_POSITION: &str = "
    INSERT INTO positions (sale, creation) VALUES ($1, $2) ON CONFLICT DO NOTHING";

const OPEN_CURSOR: &str = "
    INSERT INTO cursors (sale, creation, shard, incarnation)
    SELECT $1, $2, place - 1, incarnation FROM UNNEST($3::text[]) WITH ORDINALITY AS shards (incarnation, place)
    ON CONFLICT DO NOTHING";

const READ_CURSORS: &str = "
    SELECT shard, incarnation, seq, orders, closed_at IS NOT NULL FROM cursors WHERE sale = $1 AND creation = $2";

const RECORD_VERSION: &str = "
    INSERT INTO sale_versions (sale, creation, version, config) VALUES ($1, $2, $3, $4::text::jsonb)
    ON CONFLICT DO NOTHING";

const RECORD_SIGHTING: &str = "
    INSERT INTO sightings (sale, creation, sold) VALUES ($1, $2, $3)
    ON CONFLICT (sale, creation) DO UPDATE SET sold = EXCLUDED.sold, seen_at = now()";
const RECORD_CHANGES: &str = "
    INSERT INTO sale_changes (sale, creation, version, at, change)
    SELECT $1, $2, version, to_timestamp(at / 1000.0), change::jsonb
    FROM UNNEST($3::bigint[], $4::bigint[], $5::text[]) AS changes (version, at, change)
    ON CONFLICT DO NOTHING";

/// How far a shard's stream is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Number of the latest drained entry.
    pub(crate) seq: u64,
    /// Orders up to there.
    pub(crate) orders: u64,
    /// True when a restore replaced the shard.
    pub(crate) is_closed: bool,
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Another ledger moved the cursor.
    #[error("another ledger moved the cursor")]
    Overtaken,
    /// PostgreSQL refuses the rows, and will refuse them again.
    #[error("PostgreSQL refuses the rows")]
    Conflict(#[source] Error),
    /// The connection, or PostgreSQL. The batch may be written.
    #[error("PostgreSQL")]
    Database(#[source] Error),
    /// No answer in time. The batch may be written, or be written later.
    #[error("PostgreSQL does not answer")]
    Late,
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        // Class 22: a value that a column cannot hold. Class 23: a constraint.
        let is_refusal = |state: &SqlState| ["22", "23"].contains(&&state.code()[..2]);
        if error.code().is_some_and(is_refusal) { Self::Conflict(error) } else { Self::Database(error) }
    }
}

pub(crate) struct Writer {
    database: Database,
    write: Statement,
    deadline: Duration,
}

impl Writer {
    /// A writer over this connection, which waits this long for each answer.
    pub(crate) async fn new(database: Database, deadline: Duration) -> Result<Self, Error> {
        // The plan of a statement does not depend on its values. Planning it anew costs more than a row.
        database.client.batch_execute("SET plan_cache_mode = force_generic_plan").await?;
        let write = database.client.prepare(WRITE).await?;
        Ok(Self { database, write, deadline })
    }

    /// Waits for an answer. A frozen server never gives one, and its own limit for statements does not end that.
    async fn within<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, WriteError> {
        Ok(timeout(self.deadline, answer).await.map_err(|_| WriteError::Late)??)
    }

    /// Creates the cursors of a sale's shards, and returns them by shard number.
    pub(crate) async fn open_cursors(&self, sale: &Sale) -> Result<Vec<Cursor>, WriteError> {
        let (id, creation) = (sale.id().as_str(), sale.creation());
        let incarnations = incarnations(&sale.config);
        let client = &self.database.client;
        self.within(client.execute(OPEN_POSITION, &[&id, &creation])).await?;
        self.within(client.execute(OPEN_CURSOR, &[&id, &creation, &incarnations])).await?;
        let mut cursors = vec![Cursor::default(); incarnations.len()];
        for row in self.within(client.query(READ_CURSORS, &[&id, &creation])).await? {
            let (shard, incarnation): (i32, &str) = (row.get(0), row.get(1));
            let (seq, orders, is_closed): (i64, i64, bool) = (row.get(2), row.get(3), row.get(4));
            let place = usize::try_from(shard).ok();
            if let Some(place) = place.filter(|&place| incarnations.get(place) == Some(&incarnation)) {
                cursors[place] = Cursor { seq: seq.unsigned_abs(), orders: orders.unsigned_abs(), is_closed };
            }
        }
        Ok(cursors)
    }

    /// Records the version of a sale's configuration.
    pub(crate) async fn record_version(&self, sale: &Sale) -> Result<(), WriteError> {
        let config = serde_json::to_string(&*sale.config).expect("a config has only plain fields");
        let (id, creation, version) = (sale.id().as_str(), sale.creation(), signed(sale.config.version));
        let client = &self.database.client;
        self.within(client.execute(RECORD_VERSION, &[&id, &creation, &version, &config])).await?;
        Ok(())
    }

    /// Records how many units the shards have sold by now.
    pub(crate) async fn record_sighting(&self, sale: &Sale, sold: u64) -> Result<(), WriteError> {
        let (id, creation) = (sale.id().as_str(), sale.creation());
        let client = &self.database.client;
        self.within(client.execute(RECORD_SIGHTING, &[&id, &creation, &signed(sold)])).await?;
        Ok(())
    }

    /// Records the changes of a sale, with the origin of each. Those that are recorded already stay.
    pub(crate) async fn record_changes(
        &self,
        sale: &Sale,
        changes: &[HistoryEntry],
    ) -> Result<(), WriteError> {
        let (id, creation) = (sale.id().as_str(), sale.creation());
        let versions: Vec<i64> = changes.iter().map(|change| signed(change.version)).collect();
        let times: Vec<i64> = changes.iter().map(|change| signed(change.at)).collect();
        let to_json = |change| serde_json::to_string(change).expect("a change has only plain fields");
        let changes: Vec<String> = changes.iter().map(to_json).collect();
        let client = &self.database.client;
        self.within(client.execute(RECORD_CHANGES, &[&id, &creation, &versions, &times, &changes])).await?;
        Ok(())
    }

    /// Writes the orders of these shards. Returns the numbers of the shards that were written; the cursors of the others
    /// are elsewhere.
    pub(crate) async fn write(
        &self,
        sale: &Sale,
        batches: &[Batch<'_>],
    ) -> Result<BTreeSet<usize>, WriteError> {
        let (id, creation) = (sale.id().as_str(), sale.creation());
        let (moves, rows) = (Moves::of(sale, batches), Rows::of(id, &creation, batches));
        let started = Instant::now();
        let values: [&(dyn ToSql + Sync); 16] = [
            &id,
            &creation,
            &moves.shards,
            &moves.incarnations,
            &moves.from,
            &moves.until,
            &moves.counts,
            &rows.shards,
            &rows.places,
            &rows.seqs,
            &rows.buyers,
            &rows.ids,
            &rows.order_ids,
            &rows.payloads,
            &rows.users,
            &rows.times,
        ];
        let moved = self.within(self.database.client.query(&self.write, &values)).await?;
        metrics::statement(started.elapsed());
        let moved: BTreeSet<usize> =
            moved.iter().filter_map(|row| row.get::<_, i32>(0).try_into().ok()).collect();
        let written = batches.iter().filter(|batch| moved.contains(&batch.shard.id.index()));
        metrics::written(id, written.map(|batch| batch.orders.len()).sum());
        Ok(moved)
    }
}

/// The moves of the cursors, by column.
#[derive(Default)]
struct Moves<'a> {
    shards: Vec<i32>,
    incarnations: Vec<&'a str>,
    from: Vec<i64>,
    until: Vec<i64>,
    counts: Vec<i64>,
}

impl<'a> Moves<'a> {
    fn of(sale: &'a Sale, batches: &[Batch<'_>]) -> Self {
        let (mut moves, incarnations) = (Self::default(), incarnations(&sale.config));
        for Batch { shard, after, until, orders, .. } in batches {
            moves.shards.push(number(shard));
            moves.incarnations.push(incarnations[shard.id.index()]);
            moves.from.push(signed(*after));
            moves.until.push(signed(*until));
            moves.counts.push(signed(orders.len() as u64));
        }
        moves
    }
}

/// The rows of all batches, by column.
#[derive(Default)]
struct Rows<'a> {
    shards: Vec<i32>,
    /// Places in the batch, from 1.
    places: Vec<i64>,
    seqs: Vec<i64>,
    /// Places of the buyer in the entry.
    buyers: Vec<i32>,
    ids: Vec<Uuid>,
    order_ids: Vec<&'a str>,
    payloads: Vec<String>,
    users: Vec<&'a str>,
    times: Vec<i64>,
}

impl<'a> Rows<'a> {
    fn of(sale: &str, creation: &str, batches: &'a [Batch<'a>]) -> Self {
        let mut rows = Self::default();
        let orders = batches.iter().flat_map(|batch| {
            (1..).zip(&batch.orders).map(|(place, order)| (number(batch.shard), place, order))
        });
        for (shard, place, order) in orders {
            let (order_id, user_id) = (order.claim.order.as_str(), order.user.as_str());
            let payload = Payload {
                sale,
                order_id,
                user_id,
                purchased_at: service::time::iso8601(order.claim.purchased_at),
                correlation_id: &order.correlation,
            };
            rows.shards.push(shard);
            rows.places.push(place);
            rows.seqs.push(signed(order.seq));
            rows.buyers.push(order.place.into());
            rows.ids.push(event::id(sale, creation, order));
            rows.order_ids.push(order_id);
            rows.payloads.push(serde_json::to_string(&payload).expect("a payload has only plain fields"));
            rows.users.push(user_id);
            rows.times.push(signed(order.claim.purchased_at));
        }
        rows
    }
}

fn number(shard: &Shard) -> i32 {
    i32::try_from(shard.id.index()).expect("a sale has at most 256 shards")
}

/// The incarnations of the shards, by number.
fn incarnations(config: &SaleConfig) -> Vec<&str> {
    config.layout.incarnations.iter().map(|incarnation| incarnation.as_str()).collect()
}

fn signed(number: EpochMs) -> i64 {
    i64::try_from(number).expect("numbers of entries and times are far below 2^63")
}
