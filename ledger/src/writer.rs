//! Writes batches of orders, each with one statement.

use std::future::Future;
use std::time::{Duration, Instant};

use rediscluster::EpochMs;
use stock::history::HistoryEntry;
use stock::layout::Shard;
use stock::orders::Order;
use stock::sale::{Sale, SaleConfig};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Statement};
use uuid::Uuid;

use crate::database::Database;
use crate::event::{self, Payload};
use crate::metrics;

/// Moves the cursor from $5 to $6, numbers the orders and inserts them, or does nothing when the cursor is elsewhere. The
/// conflict target is named: without it, a second order of one user would be left out silently.
const WRITE: &str = "
    WITH moved AS (
        UPDATE cursors SET seq = $6, orders = orders + cardinality($7::bigint[]), moved_at = now()
        WHERE sale = $1 AND creation = $2 AND shard = $3 AND incarnation = $4 AND seq = $5 AND closed_at IS NULL
        RETURNING 1
    ), numbered AS (
        UPDATE positions SET position = position + cardinality($7::bigint[])
        FROM moved WHERE sale = $1 AND creation = $2
        RETURNING position - cardinality($7::bigint[]) AS before
    ), written AS (
        INSERT INTO order_events (sale, creation, shard, incarnation, seq, n, position, id, aggregatetype, aggregateid,
            type, payload, user_id, at)
        SELECT $1, $2, $3, $4, row.seq, row.n, numbered.before + row.place, row.id, 'order', row.order_id,
            'order.purchased', row.payload::jsonb, row.user_id, to_timestamp(row.at / 1000.0)
        FROM numbered, UNNEST($7::bigint[], $8::integer[], $9::uuid[], $10::text[], $11::text[], $12::text[], $13::bigint[])
            WITH ORDINALITY AS row (seq, n, id, order_id, payload, user_id, at, place)
        ON CONFLICT (sale, creation, shard, incarnation, seq, n) DO NOTHING
    )
    SELECT count(*) FROM moved";

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

    /// Writes all orders of the entries after `cursor`, up to `until`. Returns the new cursor.
    pub(crate) async fn write(
        &self,
        sale: &Sale,
        shard: &Shard,
        cursor: Cursor,
        until: u64,
        orders: &[Order],
    ) -> Result<Cursor, WriteError> {
        let (id, creation) = (sale.id().as_str(), sale.creation());
        let number = i32::try_from(shard.id.index()).expect("a sale has at most 256 shards");
        let incarnation = incarnations(&sale.config)[shard.id.index()];
        let rows = Rows::of(id, &creation, orders);
        let started = Instant::now();
        let values: [&(dyn ToSql + Sync); 13] = [
            &id,
            &creation,
            &number,
            &incarnation,
            &signed(cursor.seq),
            &signed(until),
            &rows.seqs,
            &rows.places,
            &rows.ids,
            &rows.order_ids,
            &rows.payloads,
            &rows.users,
            &rows.times,
        ];
        let moved = self.within(self.database.client.query_one(&self.write, &values)).await?;
        metrics::statement(started.elapsed());
        if moved.get::<_, i64>(0) == 0 {
            return Err(WriteError::Overtaken);
        }
        metrics::written(id, orders.len());
        Ok(Cursor { seq: until, orders: cursor.orders + orders.len() as u64, ..cursor })
    }
}

/// The rows of a batch, by column.
#[derive(Default)]
struct Rows<'a> {
    seqs: Vec<i64>,
    places: Vec<i32>,
    ids: Vec<Uuid>,
    order_ids: Vec<&'a str>,
    payloads: Vec<String>,
    users: Vec<&'a str>,
    times: Vec<i64>,
}

impl<'a> Rows<'a> {
    fn of(sale: &str, creation: &str, orders: &'a [Order]) -> Self {
        let mut rows = Self::default();
        for order in orders {
            let (order_id, user_id) = (order.claim.order.as_str(), order.user.as_str());
            let payload = Payload {
                sale,
                order_id,
                user_id,
                purchased_at: service::time::iso8601(order.claim.purchased_at),
                correlation_id: &order.correlation,
            };
            rows.seqs.push(signed(order.seq));
            rows.places.push(order.place.into());
            rows.ids.push(event::id(sale, creation, order));
            rows.order_ids.push(order_id);
            rows.payloads.push(serde_json::to_string(&payload).expect("a payload has only plain fields"));
            rows.users.push(user_id);
            rows.times.push(signed(order.claim.purchased_at));
        }
        rows
    }
}

/// The incarnations of the shards, by number.
fn incarnations(config: &SaleConfig) -> Vec<&str> {
    config.layout.incarnations.iter().map(|incarnation| incarnation.as_str()).collect()
}

fn signed(number: EpochMs) -> i64 {
    i64::try_from(number).expect("numbers of entries and times are far below 2^63")
}
