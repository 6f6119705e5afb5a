//! What the ledger knows about a sale, and its tables during a restore.

use anyhow::Context as _;
use rediscluster::EpochMs;
use stock::calls::{Claim, parse_config};
use stock::ids::{OrderId, SaleId, UserId};
use stock::import::ImportedOrder;
use stock::sale::{Sale, SaleConfig};
use stock::snapshot::Confirmed;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::Refusal;
use crate::database::Database;

/// Orders that are read and imported at a time.
const PAGE: i64 = 4_096;

/// First key of the advisory locks of restores; the second one is a hash of the sale.
const LOCK: i32 = 0x666c_7372;

const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1, hashtext($2))";
const CREATIONS: &str = "
    SELECT creation FROM sale_versions WHERE sale = $1 GROUP BY creation ORDER BY max(seen_at) DESC";
const LATEST_CONFIG: &str = "
    SELECT config::text FROM sale_versions WHERE sale = $1 AND creation = $2 ORDER BY version DESC LIMIT 1";
const LATEST_PLAN: &str = "
    SELECT number, config::text FROM restores WHERE sale = $1 AND creation = $2 ORDER BY number DESC LIMIT 1";
const BEGIN: &str = "
    INSERT INTO restores (sale, creation, number, config) VALUES ($1, $2, $3, $4::text::jsonb) ON CONFLICT DO NOTHING";
const END: &str = "
    UPDATE restores SET ended_at = now() WHERE sale = $1 AND creation = $2 AND number <= $3 AND ended_at IS NULL";
/// Locks the position first, as a ledger's statement does: neither waits for a cursor of the other.
const CLOSE_CURSORS: &str = "
    UPDATE cursors SET closed_at = now()
    FROM (SELECT FROM positions WHERE sale = $1 AND creation = $2 FOR UPDATE) AS held
    WHERE sale = $1 AND creation = $2 AND closed_at IS NULL";
const OPEN_CURSORS: &str = "
    INSERT INTO cursors (sale, creation, shard, incarnation, seq, orders, imported)
    SELECT $1, $2, place - 1, incarnation, seq, orders, orders
    FROM UNNEST($3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS shards (incarnation, seq, orders, place)
    ON CONFLICT (sale, creation, shard, incarnation)
    DO UPDATE SET seq = EXCLUDED.seq, orders = EXCLUDED.orders, imported = EXCLUDED.imported";
const COUNTS: &str = "
    SELECT count(*), count(*) FILTER (WHERE user_id IS NULL),
        (SELECT coalesce(sum(orders - imported), 0)::bigint FROM cursors WHERE sale = $1 AND creation = $2)
    FROM order_events WHERE sale = $1 AND creation = $2";
const SHARDS: &str = "
    SELECT DISTINCT ON (shard) shard, seq, orders, (extract(epoch FROM moved_at) * 1000)::bigint FROM cursors
    WHERE sale = $1 AND creation = $2 ORDER BY shard, moved_at DESC";
const SIGHTING: &str = "
    SELECT sold, (extract(epoch FROM seen_at) * 1000)::bigint FROM sightings WHERE sale = $1 AND creation = $2";
const ORDERS_AFTER: &str = "
    SELECT position, aggregateid, user_id, (extract(epoch FROM at) * 1000)::bigint, payload->>'correlationId'
    FROM order_events WHERE sale = $1 AND creation = $2 AND position > $3 ORDER BY position LIMIT $4";

/// A creation of a sale in the ledger, locked against other restores.
pub(super) struct Books {
    database: Database,
    sale: SaleId,
    creation: String,
}

/// The sale that a restore builds: its config with new shards.
pub(super) struct Plan {
    /// Counts the restores of a creation.
    pub(super) number: i32,
    /// The config while the sale is being created.
    pub(super) config: SaleConfig,
}

/// How far the ledger is.
pub(super) struct LedgerState {
    pub(super) creation: String,
    pub(super) orders: u64,
    pub(super) erased: u64,
    /// Orders by the cursors.
    drained: u64,
    pub(super) shards: Vec<DrainedShard>,
    pub(super) sighting: Option<Sighting>,
}

/// How far a shard was drained.
pub(super) struct DrainedShard {
    pub(super) number: i32,
    pub(super) seq: i64,
    pub(super) orders: i64,
    pub(super) moved_at: EpochMs,
}

/// The latest look of a ledger at all shards.
#[derive(Clone, Copy)]
pub(super) struct Sighting {
    pub(super) sold: u64,
    pub(super) at: EpochMs,
}

/// An order in the ledger.
pub(super) struct LedgerOrder {
    pub(super) position: i64,
    pub(super) order: ImportedOrder,
}

impl LedgerState {
    /// Refuses numbers that cannot be those of a sale with this total.
    pub(super) fn check(&self, total: u64) -> Result<(), Refusal> {
        let Self { orders, drained, .. } = *self;
        if orders != drained {
            return Err(Refusal::Unbalanced { rows: orders, drained });
        }
        if orders > total {
            return Err(Refusal::MoreThanTotal { orders, total });
        }
        Ok(())
    }
}

impl Books {
    /// Opens the books of a creation of the sale; of the latest one if none is named.
    pub(super) async fn open(
        database: Database,
        sale: &SaleId,
        creation: Option<&str>,
    ) -> anyhow::Result<Self> {
        let client = &database.client;
        let rows = client.query(CREATIONS, &[&sale.as_str()]).await;
        let rows = rows.map_err(|error| match error.code() {
            Some(&SqlState::UNDEFINED_TABLE) => anyhow::Error::new(Refusal::NoTables),
            _ => anyhow::Error::new(error).context("DATABASE_URL"),
        })?;
        let known: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let creation = match creation {
            None => known.into_iter().next().ok_or_else(|| Refusal::UnknownSale(sale.clone()))?,
            Some(named) if known.iter().any(|creation| creation == named) => named.to_owned(),
            Some(_) if known.is_empty() => return Err(Refusal::UnknownSale(sale.clone()).into()),
            Some(named) => {
                let known = known.join(", ");
                return Err(Refusal::UnknownCreation { creation: named.to_owned(), known }.into());
            }
        };
        // The lock ends with the connection, so a process that was killed leaves none.
        let locked = client.query_one(TRY_LOCK, &[&LOCK, &sale.as_str()]).await?;
        if !locked.get::<_, bool>(0) {
            return Err(Refusal::Running.into());
        }
        Ok(Self { database, sale: sale.clone(), creation })
    }

    /// Returns the latest config of the sale.
    pub(super) async fn latest_config(&self) -> anyhow::Result<SaleConfig> {
        let (client, key) = (&self.database.client, self.key());
        let row = client.query_one(LATEST_CONFIG, &[&key.0, &key.1]).await?;
        Ok(parse_config(row.get(0))?)
    }

    /// Returns the plan of the latest restore of this sale.
    pub(super) async fn latest_plan(&self) -> anyhow::Result<Option<Plan>> {
        let (client, key) = (&self.database.client, self.key());
        let row = client.query_opt(LATEST_PLAN, &[&key.0, &key.1]).await?;
        row.map(|row| Ok(Plan { number: row.get(0), config: parse_config(row.get(1))? })).transpose()
    }

    /// Returns how far the ledger is.
    pub(super) async fn state(&self) -> anyhow::Result<LedgerState> {
        let (client, key) = (&self.database.client, self.key());
        let counts = client.query_one(COUNTS, &[&key.0, &key.1]).await?;
        let shards = client.query(SHARDS, &[&key.0, &key.1]).await?;
        let sighting = client.query_opt(SIGHTING, &[&key.0, &key.1]).await?;
        let shard = |row: &Row| DrainedShard {
            number: row.get(0),
            seq: row.get(1),
            orders: row.get(2),
            moved_at: unsigned(row, 3),
        };
        Ok(LedgerState {
            creation: self.creation.clone(),
            orders: unsigned(&counts, 0),
            erased: unsigned(&counts, 1),
            drained: unsigned(&counts, 2),
            shards: shards.iter().map(shard).collect(),
            sighting: sighting.map(|row| Sighting { sold: unsigned(&row, 0), at: unsigned(&row, 1) }),
        })
    }

    /// Closes the cursors of the lost shards: a ledger that was frozen can no longer write rows for them.
    pub(super) async fn close_cursors(&self) -> anyhow::Result<()> {
        let key = self.key();
        self.database.client.execute(CLOSE_CURSORS, &[&key.0, &key.1]).await?;
        Ok(())
    }

    /// Records the plan, so that a restore that is interrupted goes on with the same shards.
    pub(super) async fn begin(&self, plan: &Plan) -> anyhow::Result<()> {
        let (client, key) = (&self.database.client, self.key());
        let config = serde_json::to_string(&plan.config).expect("a config has only plain fields");
        client.execute(END, &[&key.0, &key.1, &(plan.number - 1)]).await?;
        client.execute(BEGIN, &[&key.0, &key.1, &plan.number, &config]).await?;
        Ok(())
    }

    /// Records that the restore has ended.
    pub(super) async fn end(&self, plan: &Plan) -> anyhow::Result<()> {
        let key = self.key();
        self.database.client.execute(END, &[&key.0, &key.1, &plan.number]).await?;
        Ok(())
    }

    /// Returns the next orders after a position.
    pub(super) async fn orders_after(&self, position: i64) -> anyhow::Result<Vec<LedgerOrder>> {
        let (client, key) = (&self.database.client, self.key());
        let rows = client.query(ORDERS_AFTER, &[&key.0, &key.1, &position, &PAGE]).await?;
        rows.iter().map(LedgerOrder::of).collect()
    }

    /// Creates the cursors of the restored shards behind their imported orders, which have rows already.
    pub(super) async fn open_cursors(&self, sale: &Sale, confirmed: &[Confirmed]) -> anyhow::Result<()> {
        let (client, key) = (&self.database.client, self.key());
        let incarnations = &sale.config.layout.incarnations;
        let incarnations: Vec<&str> = incarnations.iter().map(|incarnation| incarnation.as_str()).collect();
        let seqs: Vec<i64> = confirmed.iter().map(|confirmed| signed(confirmed.seq)).collect();
        let orders: Vec<i64> = confirmed.iter().map(|confirmed| signed(confirmed.sold)).collect();
        client.execute(OPEN_CURSORS, &[&key.0, &key.1, &incarnations, &seqs, &orders]).await?;
        Ok(())
    }

    fn key(&self) -> (&str, &str) {
        (self.sale.as_str(), &self.creation)
    }
}

impl LedgerOrder {
    fn of(row: &Row) -> anyhow::Result<Self> {
        let (position, id, user): (i64, &str, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let order: OrderId = id.parse().with_context(|| format!("the order id at position {position}"))?;
        let user = user.map_or_else(|| UserId::erased(&order), UserId::stored);
        let correlation = row.get::<_, Option<&str>>(4).unwrap_or_default().into();
        let claim = Claim { order, purchased_at: unsigned(row, 3) };
        Ok(Self { position, order: ImportedOrder { user, claim, correlation } })
    }
}

fn unsigned(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).unsigned_abs()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("numbers of entries and orders are far below 2^63")
}
