//! The audit of a sale: compares the rows in PostgreSQL with the claims and order streams in Redis.
//!
//! Only entries up to the cursors are compared, which were confirmed by a barrier before they were written. So the audit
//! is valid while the sale goes on: an order after a cursor is behind, not missing. Cursors and rows are counted in one
//! statement. Both sides are read page by page, so memory does not grow with the sale.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rediscluster::{CallError, Cluster, EpochMs};
use serde::Serialize;
use stock::ids::{OrderId, SaleId, ShardId, UserId};
use stock::layout::{SaleKeys, Shard};
use stock::orders::{Order, ReadClaims, ReadOrders, ReadProgress};
use stock::sale::{InvalidSale, Sale};
use stock::store::ReadConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::database::{Database, DatabaseSettings};

/// Most audits at a time.
const AUDITS_MAX: usize = 1;
/// Longest wait for another audit to end.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Shards that are compared at a time.
const SHARDS_AT_ONCE: usize = 4;
/// Entries in one read of a stream. An entry has up to 64 orders, so this takes about a millisecond of Redis.
const ENTRIES_PER_PAGE: usize = 16;
/// Rows in one read of the table.
const ROWS_PER_PAGE: i64 = 1_000;
/// Most violations that are listed. Further ones are only counted.
const LISTED_MAX: usize = 100;

const CURSORS: &str = "
    SELECT shard, incarnation, seq, orders, (SELECT count(*) FROM order_events WHERE sale = $1 AND creation = $2)
    FROM cursors WHERE sale = $1 AND creation = $2";
const ROWS_OF_ORDERS: &str = "
    SELECT aggregateid, user_id, (extract(epoch FROM at) * 1000)::bigint FROM order_events
    WHERE sale = $1 AND creation = $2 AND aggregateid = ANY($3)";
const ROWS_AFTER: &str = "
    SELECT position, aggregateid, user_id FROM order_events
    WHERE sale = $1 AND creation = $2 AND position > $3 ORDER BY position LIMIT $4";

/// The result of an audit.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SaleAudit {
    /// True when nothing is missing, extra or doubled. Being behind is not a violation.
    ok: bool,
    /// Each violation in words, at most 100.
    violations: Vec<String>,
    /// Rows in PostgreSQL.
    rows: u64,
    /// Orders in Redis up to the cursors without their row.
    missing: u64,
    /// Rows without their order in Redis.
    extra: u64,
    /// Further rows of an order that has one.
    doubled: u64,
    /// Orders in Redis after the cursors.
    behind: u64,
    /// The shards in which something is missing, doubled, or behind.
    shards: Vec<ShardAudit>,
}

/// The part of a shard.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ShardAudit {
    /// Number of the shard.
    #[schema(value_type = u16)]
    shard: ShardId,
    /// As of the sale.
    missing: u64,
    /// As of the sale.
    doubled: u64,
    /// As of the sale.
    behind: u64,
    #[serde(skip)]
    matched: u64,
    #[serde(skip)]
    violations: Vec<String>,
}

/// Why an audit could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerAuditError {
    #[error("Redis has no sale of this name")]
    NotInRedis,
    #[error("the layout of the sale is not valid: {0}")]
    Layout(#[from] InvalidSale),
    #[error("Redis: {0}")]
    Redis(#[from] CallError),
    #[error("PostgreSQL: {0}")]
    Database(#[from] tokio_postgres::Error),
    #[error("not ready, or another audit is running")]
    Busy,
}

/// Audits sales, one at a time, each over a connection of its own.
#[derive(Clone)]
pub struct Audits(Arc<Inner>);

struct Inner {
    database: DatabaseSettings,
    cluster: OnceLock<Arc<Cluster>>,
    permits: Semaphore,
}

impl Audits {
    /// Audits against this database, once a cluster is set.
    pub fn new(database: DatabaseSettings) -> Self {
        Self(Arc::new(Inner { database, cluster: OnceLock::new(), permits: Semaphore::new(AUDITS_MAX) }))
    }

    /// Sets the cluster.
    pub fn set_cluster(&self, cluster: Arc<Cluster>) {
        self.0.cluster.set(cluster).ok();
    }

    /// Audits a sale.
    pub(crate) async fn audit(&self, id: &SaleId) -> Result<SaleAudit, LedgerAuditError> {
        let Inner { database, cluster, permits } = &*self.0;
        let cluster = cluster.get().ok_or(LedgerAuditError::Busy)?;
        let permit = timeout(WAIT_MAX, permits.acquire()).await.map_err(|_| LedgerAuditError::Busy)?;
        let _permit = permit.expect("the semaphore is never closed");
        let config =
            cluster.read(ReadConfig(&SaleKeys::new(id))).await?.ok_or(LedgerAuditError::NotInRedis)?;
        let sale = Sale::new(config)?;
        let database = timeout(database.timeout(), database.connect());
        let database = database.await.map_err(|_| LedgerAuditError::Busy)??;
        Auditor { cluster, sale: &sale, creation: sale.creation(), database }.audit().await
    }
}

struct Auditor<'a> {
    cluster: &'a Cluster,
    sale: &'a Sale,
    creation: String,
    database: Database,
}

/// The cursor of a shard.
#[derive(Clone, Copy, Default)]
struct AuditedCursor {
    seq: u64,
    orders: u64,
}

impl Auditor<'_> {
    async fn audit(&self) -> Result<SaleAudit, LedgerAuditError> {
        let (cursors, rows) = self.cursors().await?;
        let shards = self.sale.shards().iter().zip(cursors);
        let comparing: Vec<_> = shards.map(|(shard, cursor)| self.compare(shard, cursor)).collect();
        let compared: Vec<ShardAudit> =
            stream::iter(comparing).buffered(SHARDS_AT_ONCE).try_collect().await?;

        let sum = |part: fn(&ShardAudit) -> u64| compared.iter().map(part).sum::<u64>();
        let (missing, doubled) = (sum(|shard| shard.missing), sum(|shard| shard.doubled));
        let behind = sum(|shard| shard.behind);
        let extra = rows.saturating_sub(sum(|shard| shard.matched) + doubled);
        let mut violations: Vec<String> =
            compared.iter().flat_map(|shard| shard.violations.iter().cloned()).collect();
        if extra > 0 {
            violations.push(format!("{extra} rows have no order in Redis"));
            violations.extend(self.name_extra(extra).await?);
        }
        violations.truncate(LISTED_MAX);
        let has_news = |shard: &ShardAudit| shard.missing + shard.doubled + shard.behind > 0;
        Ok(SaleAudit {
            ok: violations.is_empty() && missing + extra + doubled == 0,
            violations,
            rows,
            missing,
            extra,
            doubled,
            behind,
            shards: compared.into_iter().filter(has_news).collect(),
        })
    }

    /// Reads the cursors of the shards' incarnations, and counts the rows at the same moment.
    async fn cursors(&self) -> Result<(Vec<AuditedCursor>, u64), LedgerAuditError> {
        let incarnations = &self.sale.config.layout.incarnations;
        let mut cursors = vec![AuditedCursor::default(); self.sale.shards().len()];
        let mut count = 0;
        let id = self.sale.id().as_str();
        for row in self.database.client.query(CURSORS, &[&id, &self.creation]).await? {
            let (shard, incarnation): (i32, &str) = (row.get(0), row.get(1));
            let number = |column| row.get::<_, i64>(column).unsigned_abs();
            count = number(4);
            let place = usize::try_from(shard).ok();
            let is_current =
                |place: &usize| incarnations.get(*place).is_some_and(|it| it.as_str() == incarnation);
            if let Some(place) = place.filter(is_current) {
                cursors[place] = AuditedCursor { seq: number(2), orders: number(3) };
            }
        }
        Ok((cursors, count))
    }

    /// Compares the orders of a shard up to its cursor with its claims and with the rows.
    async fn compare(&self, shard: &Shard, cursor: AuditedCursor) -> Result<ShardAudit, LedgerAuditError> {
        let mut audit = ShardAudit {
            shard: shard.id,
            missing: 0,
            doubled: 0,
            behind: 0,
            matched: 0,
            violations: Vec::new(),
        };
        let progress = match self.cluster.read(ReadProgress { shard }).await {
            Ok(progress) => progress,
            Err(error @ (CallError::NoShard | CallError::WrongRing(_))) => {
                audit.violations.push(format!("shard {}: {error}", shard.id));
                return Ok(audit);
            }
            Err(error) => return Err(error.into()),
        };
        if progress.seq < cursor.seq {
            audit.violations.push(format!(
                "shard {}: {} entries are in Redis, and {} in the ledger",
                shard.id, progress.seq, cursor.seq
            ));
        }
        audit.behind = progress.sold.saturating_sub(cursor.orders);
        let mut after = 0;
        while after < cursor.seq {
            let read = ReadOrders { shard, after, until: Some(cursor.seq), entries: ENTRIES_PER_PAGE };
            let orders = self.cluster.read(read).await?;
            let Some(last) = orders.last() else { break };
            after = last.seq;
            self.compare_claims(shard, &orders, &mut audit).await?;
            self.compare_rows(shard, &orders, &mut audit).await?;
        }
        Ok(audit)
    }

    async fn compare_claims(
        &self,
        shard: &Shard,
        orders: &[Order],
        audit: &mut ShardAudit,
    ) -> Result<(), LedgerAuditError> {
        let users: Vec<&UserId> = orders.iter().map(|order| &order.user).collect();
        let claims = self.cluster.read(ReadClaims { shard, users: &users }).await?;
        for (order, claim) in orders.iter().zip(claims) {
            if claim != Some(order.claim) {
                audit.find(|| {
                    format!("shard {}: order {} is not the claim of its user", shard.id, order.claim.order)
                });
            }
        }
        Ok(())
    }

    async fn compare_rows(
        &self,
        shard: &Shard,
        orders: &[Order],
        audit: &mut ShardAudit,
    ) -> Result<(), LedgerAuditError> {
        let ids: Vec<&str> = orders.iter().map(|order| order.claim.order.as_str()).collect();
        let id = self.sale.id().as_str();
        let rows = self.database.client.query(ROWS_OF_ORDERS, &[&id, &self.creation, &ids]).await?;
        let mut by_order: HashMap<&str, Vec<(Option<&str>, EpochMs)>> = HashMap::new();
        for row in &rows {
            by_order.entry(row.get(0)).or_default().push((row.get(1), row.get::<_, i64>(2).unsigned_abs()));
        }
        for order in orders {
            let rows = by_order.get(order.claim.order.as_str()).map_or(&[][..], Vec::as_slice);
            // A row without a user is that of a person who was erased.
            let is_own = |(user, at): &&(Option<&str>, EpochMs)| {
                user.is_none_or(|user| user == order.user.as_str()) && *at == order.claim.purchased_at
            };
            let own = rows.iter().filter(is_own).count() as u64;
            if own == 0 {
                audit.missing += 1;
                audit.find(|| format!("shard {}: order {} has no row", shard.id, order.claim.order));
            } else {
                audit.matched += 1;
            }
            let doubled = own.saturating_sub(1);
            if doubled > 0 {
                audit.doubled += doubled;
                audit.find(|| format!("shard {}: order {} has {own} rows", shard.id, order.claim.order));
            }
        }
        Ok(())
    }

    /// Names rows whose users have no such claim in Redis. Rows without a user cannot be named.
    async fn name_extra(&self, extra: u64) -> Result<Vec<String>, LedgerAuditError> {
        let (mut named, mut after) = (Vec::new(), 0_i64);
        let id = self.sale.id().as_str();
        while (named.len() as u64) < extra.min(LISTED_MAX as u64) {
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&id, &self.creation, &after, &ROWS_PER_PAGE];
            let rows = self.database.client.query(ROWS_AFTER, &values).await?;
            let Some(last) = rows.last() else { break };
            after = last.get(0);
            let users = rows
                .iter()
                .filter_map(|row| Some((UserId::stored(row.get::<_, Option<String>>(2)?), row.get(1))));
            let mut by_home: HashMap<ShardId, Vec<(UserId, &str)>> = HashMap::new();
            for (user, order) in users {
                by_home.entry(self.sale.ring().home(&user)).or_default().push((user, order));
            }
            for (home, rows) in by_home {
                let users: Vec<&UserId> = rows.iter().map(|(user, _)| user).collect();
                let claims =
                    self.cluster.read(ReadClaims { shard: self.sale.shard(home), users: &users }).await?;
                for ((_, order), claim) in rows.iter().zip(claims) {
                    let order_id: Option<OrderId> = order.parse().ok();
                    if claim.map(|claim| claim.order) != order_id || order_id.is_none() {
                        named.push(format!("the row of order {order} has no claim"));
                    }
                }
            }
        }
        Ok(named)
    }
}

impl ShardAudit {
    fn find(&mut self, text: impl FnOnce() -> String) {
        if self.violations.len() < LISTED_MAX {
            self.violations.push(text());
        }
    }
}
