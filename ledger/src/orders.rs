//! Reads orders from PostgreSQL, in the order of their positions.

use deadpool_postgres::{ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use serde_json::Value;
use stock::ids::SaleId;
use tokio_postgres::Error;

use crate::database::DatabaseSettings;

/// Most connections for readers. Writing has one of its own, so that readers never delay it.
const CONNECTIONS_MAX: usize = 4;
/// Most orders in one read. A longer answer is read page by page, so its memory does not grow.
pub(crate) const PAGE: u32 = 1_000;

const CREATION: &str =
    "SELECT creation FROM sale_versions WHERE sale = $1 ORDER BY seen_at DESC, version DESC LIMIT 1";
const ORDERS_AFTER: &str = "
    SELECT position, payload FROM order_events
    WHERE sale = $1 AND creation = $2 AND position > $3 ORDER BY position LIMIT $4";
const BY_ORDER: &str =
    "SELECT position, payload FROM order_events WHERE sale = $1 AND creation = $2 AND aggregateid = $3";
const BY_USER: &str =
    "SELECT position, payload FROM order_events WHERE sale = $1 AND creation = $2 AND user_id = $3";
const BY_MINUTE: &str = "
    SELECT (extract(epoch FROM date_trunc('minute', at)) * 1000)::bigint, count(*) FROM order_events
    WHERE sale = $1 AND creation = $2 GROUP BY 1 ORDER BY 1";
const ERASE: &str = "
    UPDATE order_events SET user_id = NULL, payload = payload - '{userId,correlationId}'::text[]
    WHERE sale = $1 AND creation = $2 AND aggregateid = $3";

/// An order in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredOrder {
    pub(crate) position: i64,
    pub(crate) payload: Value,
}

/// The orders of one sale and creation.
#[derive(Clone)]
pub(crate) struct SaleOrders {
    pool: Pool,
    sale: String,
    creation: String,
}

/// Why orders could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no connection to PostgreSQL: {0}")]
    Pool(#[from] PoolError),
    #[error("PostgreSQL: {0}")]
    Database(#[from] Error),
}

/// Reads orders over connections of its own.
#[derive(Clone)]
pub struct Orders(Pool);

impl Orders {
    /// Opens no connection yet.
    pub fn new(settings: &DatabaseSettings) -> Self {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = settings.manager(recycling);
        let limit = Some(settings.timeout());
        let timeouts = Timeouts { wait: limit, create: limit, recycle: limit };
        let pool =
            Pool::builder(manager).max_size(CONNECTIONS_MAX).timeouts(timeouts).runtime(Runtime::Tokio1);
        Self(pool.build().expect("a runtime is set"))
    }

    /// Returns the orders of the latest sale of this name, or `None` when the ledger knows none.
    pub(crate) async fn of(&self, sale: &SaleId) -> Result<Option<SaleOrders>, ReadError> {
        let row = self.0.get().await?.query_opt(CREATION, &[&sale.as_str()]).await?;
        let orders = |creation| SaleOrders { pool: self.0.clone(), sale: sale.to_string(), creation };
        Ok(row.map(|row| orders(row.get(0))))
    }
}

impl SaleOrders {
    /// Returns at most `limit` orders after a position.
    pub(crate) async fn after(&self, position: i64, limit: u32) -> Result<Vec<StoredOrder>, ReadError> {
        let client = self.pool.get().await?;
        let limit = i64::from(limit);
        let rows = client.query(ORDERS_AFTER, &[&self.sale, &self.creation, &position, &limit]).await?;
        Ok(rows.iter().map(StoredOrder::of).collect())
    }

    /// Returns the order with this id.
    pub(crate) async fn by_order(&self, order: &str) -> Result<Option<StoredOrder>, ReadError> {
        self.one(BY_ORDER, order).await
    }

    /// Returns the order of a user.
    pub(crate) async fn by_user(&self, user: &str) -> Result<Option<StoredOrder>, ReadError> {
        self.one(BY_USER, user).await
    }

    async fn one(&self, query: &str, id: &str) -> Result<Option<StoredOrder>, ReadError> {
        // PostgreSQL refuses this character in every text.
        if id.contains('\0') {
            return Ok(None);
        }
        let row = self.pool.get().await?.query_opt(query, &[&self.sale, &self.creation, &id]).await?;
        Ok(row.as_ref().map(StoredOrder::of))
    }

    /// Returns the number of orders in each minute that has any: the start of the minute in ms, and the number.
    pub(crate) async fn by_minute(&self) -> Result<Vec<(u64, i64)>, ReadError> {
        let rows = self.pool.get().await?.query(BY_MINUTE, &[&self.sale, &self.creation]).await?;
        Ok(rows.iter().map(|row| (row.get::<_, i64>(0).unsigned_abs(), row.get(1))).collect())
    }

    /// Removes everything about the person from an order. Returns false when there is no such order.
    pub(crate) async fn erase_user(&self, order: &str) -> Result<bool, ReadError> {
        if order.contains('\0') {
            return Ok(false);
        }
        let client = self.pool.get().await?;
        Ok(client.execute(ERASE, &[&self.sale, &self.creation, &order]).await? > 0)
    }
}

impl StoredOrder {
    fn of(row: &tokio_postgres::Row) -> Self {
        Self { position: row.get(0), payload: row.get(1) }
    }
}
