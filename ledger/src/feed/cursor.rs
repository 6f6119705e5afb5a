//! The cursors of a sink, and the events after them.

use std::time::Duration;

use super::cloud_event::{Event, Row};
use super::lease::{Lease, LeaseError};
use super::sink::SinkName;

pub(super) const OPEN: &str = "
    INSERT INTO feeds (sink, sale, creation) SELECT $1, sale, creation FROM positions ON CONFLICT DO NOTHING";

/// Sales with events to deliver, and those that had some in the last hour.
pub(super) const BEHIND: &str = "
    SELECT sale, creation, feeds.position, positions.position, (extract(epoch FROM moved_at) * 1000000)::bigint,
        coalesce(extract(epoch FROM now() - (
            SELECT at FROM order_events AS next
            WHERE next.sale = feeds.sale AND next.creation = feeds.creation AND next.position = feeds.position + 1
        ))::float8, 0)
    FROM feeds JOIN positions USING (sale, creation)
    WHERE sink = $1 AND (positions.position > feeds.position OR moved_at > now() - interval '1 hour')";

pub(super) const READ: &str = "
    SELECT position, id::text, shard, type, aggregateid, payload, (extract(epoch FROM at) * 1000)::bigint
    FROM order_events WHERE sale = $1 AND creation = $2 AND position > $3 ORDER BY position LIMIT $4";

pub(super) const ADVANCE: &str = "
    UPDATE feeds SET position = $5, moved_at = now()
    WHERE sink = $1 AND sale = $2 AND creation = $3 AND position = $4
    RETURNING (extract(epoch FROM moved_at) * 1000000)::bigint";

/// A sale, distinguished from earlier ones of its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SaleKey {
    pub(crate) sale: String,
    pub(crate) creation: String,
}

/// How far a sink has the orders of a sale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lag {
    /// Number of the latest delivered order.
    pub(crate) position: i64,
    /// Number of the latest order.
    pub(crate) latest: i64,
    /// Changes when a person moves the cursor, also to where it is.
    pub(crate) moved_at: i64,
    /// Time since the purchase of the first order that is not delivered.
    pub(crate) age: Duration,
}

impl Lease {
    /// Returns all sales that are not delivered completely, and those that recently were.
    pub(crate) async fn lags(&self, sink: SinkName) -> Result<Vec<(SaleKey, Lag)>, LeaseError> {
        self.query(&self.statements.open, &[&sink.as_str()]).await?;
        let rows = self.query(&self.statements.behind, &[&sink.as_str()]).await?;
        let lags = rows.iter().map(|row| {
            let sale = SaleKey { sale: row.get(0), creation: row.get(1) };
            let age = Duration::try_from_secs_f64(row.get(5)).unwrap_or_default();
            (sale, Lag { position: row.get(2), latest: row.get(3), moved_at: row.get(4), age })
        });
        Ok(lags.collect())
    }

    /// Returns at most `limit` events of a sale after a position.
    pub(crate) async fn events(
        &self,
        sale: &SaleKey,
        position: i64,
        limit: u32,
    ) -> Result<Vec<Event>, LeaseError> {
        let limit = i64::from(limit);
        let read = &self.statements.read;
        let rows = self.query(read, &[&sale.sale, &sale.creation, &position, &limit]).await?;
        let events = rows.iter().map(|row| {
            let columns = Row {
                position: row.get(0),
                id: row.get(1),
                shard: row.get(2),
                kind: row.get(3),
                order: row.get(4),
                payload: row.get(5),
                purchased_at: row.get::<_, i64>(6).unsigned_abs(),
            };
            Event::new(sale, columns)
        });
        Ok(events.collect())
    }

    /// Moves the cursor of a sale, and returns when. Returns `None` if a person moved it in the meantime.
    pub(crate) async fn advance(
        &self,
        sink: SinkName,
        sale: &SaleKey,
        from: i64,
        to: i64,
    ) -> Result<Option<i64>, LeaseError> {
        let advance = &self.statements.advance;
        let moved = self.query(advance, &[&sink.as_str(), &sale.sale, &sale.creation, &from, &to]).await?;
        Ok(moved.first().map(|row| row.get(0)))
    }
}
