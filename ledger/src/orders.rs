//! Reads orders from PostgreSQL, in the order of their positions.

use std::time::Duration;

use deadpool_postgres::{ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use rediscluster::EpochMs;
use serde_json::Value;
use stock::ids::{SaleId, UserId, UserIdKind};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::database::DatabaseSettings;

/// Most connections for readers. Writing has one of its own, so that readers never delay it.
const CONNECTIONS_MAX: usize = 4;

const SALE: &str = "
    SELECT version.creation, coalesce(positions.position, 0), version.config->'userIds'
    FROM sale_versions AS version LEFT JOIN positions USING (sale, creation)
    WHERE version.sale = $1 AND ($2::text IS NULL OR version.creation = $2)
    ORDER BY version.seen_at DESC, version.version DESC LIMIT 1";
const SALES: &str = "
    SELECT latest.sale, latest.creation, latest.version, latest.config, latest.first_seen,
        coalesce(positions.position, 0)
    FROM (
        SELECT DISTINCT ON (sale, creation) sale, creation, version, config,
            (extract(epoch FROM min(seen_at) OVER (PARTITION BY sale, creation)) * 1000)::bigint AS first_seen
        FROM sale_versions ORDER BY sale, creation, version DESC
    ) AS latest LEFT JOIN positions USING (sale, creation)
    ORDER BY latest.first_seen DESC, latest.sale LIMIT $1";
const VERSIONS: &str = "
    SELECT version, (extract(epoch FROM seen_at) * 1000)::bigint, config FROM sale_versions
    WHERE sale = $1 AND creation = $2 ORDER BY version DESC";
const CHANGES: &str = "
    SELECT change FROM sale_changes WHERE sale = $1 AND creation = $2 ORDER BY version DESC, at DESC";
const ORDERS_BETWEEN: &str = "
    SELECT position, payload FROM order_events
    WHERE sale = $1 AND creation = $2 AND position > $3 AND position <= $4 ORDER BY position";
const BY_ORDER: &str =
    "SELECT position, payload FROM order_events WHERE sale = $1 AND creation = $2 AND aggregateid = $3";
const BY_USER: &str =
    "SELECT position, payload FROM order_events WHERE sale = $1 AND creation = $2 AND user_id = $3";
/// Each sale interprets user ids in its own way: $1 as they are, $2 as an e-mail address, $3 as a mailbox.
const OF_PERSON: &str = "
    SELECT bought.position, bought.payload, sales.creation
    FROM (
        SELECT DISTINCT ON (sale, creation) sale, creation, config->>'userIds' AS kind
        FROM sale_versions ORDER BY sale, creation, version DESC
    ) AS sales CROSS JOIN LATERAL (
        SELECT position, payload, at FROM order_events
        WHERE sale = sales.sale AND creation = sales.creation
            AND user_id = CASE sales.kind WHEN 'email' THEN $2 WHEN 'email-folded' THEN $3 ELSE $1 END
    ) AS bought ORDER BY bought.at, sales.sale LIMIT $4";
const BY_MINUTE: &str = "
    SELECT (extract(epoch FROM date_trunc('minute', at)) * 1000)::bigint, count(*) FROM order_events
    WHERE sale = $1 AND creation = $2 GROUP BY 1 ORDER BY 1";
const ERASE: &str = "
    UPDATE order_events SET user_id = NULL, payload = payload - '{userId,correlationId}'::text[]
    WHERE sale = $1 AND creation = $2 AND aggregateid = $3 RETURNING 1";

/// An order in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredOrder {
    pub(crate) position: i64,
    pub(crate) payload: Value,
}

/// An order of a person, and the creation of its sale.
pub(crate) struct PersonsOrder {
    pub(crate) order: StoredOrder,
    pub(crate) creation: String,
}

/// A version of a sale's configuration.
pub(crate) struct SaleVersion {
    pub(crate) version: i64,
    pub(crate) seen_at: EpochMs,
    pub(crate) config: Value,
}

/// A sale that the ledger knows, at its latest version. `seen_at` is the time of its first one.
pub(crate) struct KnownSale {
    pub(crate) sale: String,
    pub(crate) creation: String,
    pub(crate) latest: SaleVersion,
    pub(crate) orders: i64,
}

/// The orders of one sale and creation.
#[derive(Clone)]
pub(crate) struct SaleOrders {
    reader: Orders,
    pub(crate) sale: String,
    pub(crate) creation: String,
    /// Position of the last order. Those up to it are all in PostgreSQL.
    pub(crate) last: i64,
    user_ids: UserIdKind,
}

/// Why orders could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no connection to PostgreSQL: {0}")]
    Pool(#[from] PoolError),
    #[error("PostgreSQL: {0}")]
    Database(#[from] Error),
    #[error("PostgreSQL does not answer")]
    Late,
}

/// Reads orders over connections of its own.
#[derive(Clone)]
pub struct Orders {
    pool: Pool,
    deadline: Duration,
}

impl Orders {
    /// Opens no connection yet.
    pub fn new(settings: &DatabaseSettings) -> Self {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = settings.manager(recycling);
        let deadline = settings.timeout();
        let limit = Some(deadline);
        let timeouts = Timeouts { wait: limit, create: limit, recycle: limit };
        let pool =
            Pool::builder(manager).max_size(CONNECTIONS_MAX).timeouts(timeouts).runtime(Runtime::Tokio1);
        Self { pool: pool.build().expect("a runtime is set"), deadline }
    }

    /// Returns the orders of the sale with this name and creation, or of the latest sale of this name. Returns `None`
    /// when the ledger knows no such sale.
    pub(crate) async fn of(
        &self,
        sale: &SaleId,
        creation: Option<&str>,
    ) -> Result<Option<SaleOrders>, ReadError> {
        let rows = self.query(SALE, &[&sale.as_str(), &creation]).await?;
        Ok(rows.first().map(|row| SaleOrders {
            reader: self.clone(),
            sale: sale.to_string(),
            creation: row.get(0),
            last: row.get(1),
            user_ids: user_ids(row.get(2)),
        }))
    }

    /// Returns the latest sales, with the latest one first.
    pub(crate) async fn sales(&self, limit: u32) -> Result<Vec<KnownSale>, ReadError> {
        let rows = self.query(SALES, &[&i64::from(limit)]).await?;
        let known = |row: &Row| {
            let seen_at = row.get::<_, i64>(4).unsigned_abs();
            let latest = SaleVersion { version: row.get(2), config: row.get(3), seen_at };
            KnownSale { sale: row.get(0), creation: row.get(1), latest, orders: row.get(5) }
        };
        Ok(rows.iter().map(known).collect())
    }

    /// Returns at most `limit` orders of a person, of all sales. Each sale interprets the id in its own way.
    pub(crate) async fn of_person(&self, user: &str, limit: u32) -> Result<Vec<PersonsOrder>, ReadError> {
        let kinds = [UserIdKind::Opaque, UserIdKind::Email, UserIdKind::EmailFolded];
        let ids = kinds.map(|kind| UserId::parse(user, kind).ok());
        let [opaque, email, mailbox] = ids.each_ref().map(|id| id.as_ref().map(UserId::as_str));
        let rows = self.query(OF_PERSON, &[&opaque, &email, &mailbox, &i64::from(limit)]).await?;
        let found = |row: &Row| PersonsOrder { order: StoredOrder::of(row), creation: row.get(2) };
        Ok(rows.iter().map(found).collect())
    }

    /// Runs a statement. A connection on which it was not answered in time is closed: a frozen server never answers, and
    /// its own limit for statements does not end that.
    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, ReadError> {
        let client = self.pool.get().await?;
        let answer = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, values).await
        };
        match timeout(self.deadline, answer).await {
            Ok(rows) => Ok(rows?),
            Err(_) => {
                drop(Object::take(client));
                Err(ReadError::Late)
            }
        }
    }
}

impl SaleOrders {
    /// Returns the orders after a position, up to another one.
    pub(crate) async fn between(&self, after: i64, until: i64) -> Result<Vec<StoredOrder>, ReadError> {
        let rows = self.query(ORDERS_BETWEEN, &[&after, &until]).await?;
        Ok(rows.iter().map(StoredOrder::of).collect())
    }

    /// Returns the order with this id.
    pub(crate) async fn by_order(&self, order: &str) -> Result<Option<StoredOrder>, ReadError> {
        // PostgreSQL refuses this character in every text.
        if order.contains('\0') {
            return Ok(None);
        }
        Ok(self.query(BY_ORDER, &[&order]).await?.first().map(StoredOrder::of))
    }

    /// Returns the order of a user. The id is interpreted as at a purchase.
    pub(crate) async fn by_user(&self, user: &str) -> Result<Option<StoredOrder>, ReadError> {
        let Ok(user) = UserId::parse(user, self.user_ids) else { return Ok(None) };
        Ok(self.query(BY_USER, &[&user.as_str()]).await?.first().map(StoredOrder::of))
    }

    /// Returns the number of orders in each minute that has any: the start of the minute, and the number.
    pub(crate) async fn by_minute(&self) -> Result<Vec<(EpochMs, i64)>, ReadError> {
        let rows = self.query(BY_MINUTE, &[]).await?;
        Ok(rows.iter().map(|row| (row.get::<_, i64>(0).unsigned_abs(), row.get(1))).collect())
    }

    /// Returns the recorded versions of the sale, with the latest one first.
    pub(crate) async fn versions(&self) -> Result<Vec<SaleVersion>, ReadError> {
        let rows = self.query(VERSIONS, &[]).await?;
        let version = |row: &Row| SaleVersion {
            version: row.get(0),
            seen_at: row.get::<_, i64>(1).unsigned_abs(),
            config: row.get(2),
        };
        Ok(rows.iter().map(version).collect())
    }

    /// Returns the recorded changes of the sale, with the latest one first.
    pub(crate) async fn changes(&self) -> Result<Vec<Value>, ReadError> {
        Ok(self.query(CHANGES, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Removes everything about the person from an order. Returns false when there is no such order.
    pub(crate) async fn erase_user(&self, order: &str) -> Result<bool, ReadError> {
        if order.contains('\0') {
            return Ok(false);
        }
        Ok(!self.query(ERASE, &[&order]).await?.is_empty())
    }

    /// Runs a statement whose first values are the sale and its creation.
    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, ReadError> {
        let of_sale: [&(dyn ToSql + Sync); 2] = [&self.sale, &self.creation];
        self.reader.query(sql, &[&of_sale, values].concat()).await
    }
}

impl StoredOrder {
    fn of(row: &Row) -> Self {
        Self { position: row.get(0), payload: row.get(1) }
    }
}

/// The interpretation of user ids in a sale's configuration. One of a later release is taken as it is.
fn user_ids(config: Option<Value>) -> UserIdKind {
    config.and_then(|kind| serde_json::from_value(kind).ok()).unwrap_or_default()
}
