//! The right to deliver to a sink: an advisory lock of PostgreSQL, which at most one session has.
//!
//! Everything about a cursor is read and written over the session that has the lock. When PostgreSQL ends the session,
//! the lock is free, and no statement of the ledger that had it can follow.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::database::{Database, DatabaseSettings};
use crate::migrate;

use super::cursor::{ADVANCE, BEHIND, OPEN, READ};
use super::sink::SinkName;

/// First key of the advisory locks of sinks. Any number that no other program uses in this database.
const LOCK_CLASS: i32 = 0x666c_7368;

/// Time between two tries to get the lock that another ledger has.
const STANDBY_PERIOD: Duration = Duration::from_secs(1);

/// Ends the session of a ledger that is frozen, or whose machine is gone: another ledger takes over then. A ledger at work
/// asks several times in this time. `idle_session_timeout` exists from PostgreSQL 14 on.
const END_DEAD_SESSION: &str = "
    SELECT set_config(name, setting, false) FROM (VALUES
        ('idle_session_timeout', '10s'), ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '5'),
        ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '15000')
    ) AS wanted (name, setting) WHERE name IN (SELECT name FROM pg_settings)";

/// Why the right to deliver is lost, or was not obtained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("PostgreSQL")]
    Database(#[from] Error),
    #[error("PostgreSQL does not answer")]
    Late,
    #[error("{0:#}")]
    Migration(anyhow::Error),
}

/// A session that has, or waits for, the lock of a sink.
pub(crate) struct Lease {
    database: Database,
    pub(super) statements: Statements,
    deadline: Duration,
    sink: SinkName,
}

pub(super) struct Statements {
    pub(super) open: Statement,
    pub(super) behind: Statement,
    pub(super) read: Statement,
    pub(super) advance: Statement,
}

impl Lease {
    /// Connects, and waits until no other ledger has the lock of this sink.
    pub(crate) async fn obtain(settings: &DatabaseSettings, sink: SinkName) -> Result<Self, LeaseError> {
        let lease = Self::connect(settings, sink).await?;
        let mut is_logged = false;
        while !lease.try_lock().await? {
            if !is_logged {
                tracing::info!(%sink, "another ledger delivers to this sink");
                is_logged = true;
            }
            sleep(STANDBY_PERIOD).await;
        }
        Ok(lease)
    }

    async fn connect(settings: &DatabaseSettings, sink: SinkName) -> Result<Self, LeaseError> {
        let deadline = settings.timeout();
        let mut database = within(deadline, settings.connect()).await?;
        migrate::run(&mut database).await.map_err(LeaseError::Migration)?;
        let client = &database.client;
        let prepare = async |sql| within(deadline, client.prepare(sql)).await;
        let statements = Statements {
            open: prepare(OPEN).await?,
            behind: prepare(BEHIND).await?,
            read: prepare(READ).await?,
            advance: prepare(ADVANCE).await?,
        };
        within(deadline, client.query(END_DEAD_SESSION, &[])).await?;
        Ok(Self { database, statements, deadline, sink })
    }

    async fn try_lock(&self) -> Result<bool, LeaseError> {
        let keys: [&(dyn ToSql + Sync); 2] = [&LOCK_CLASS, &(self.sink as i32)];
        let locking = self.database.client.query_one("SELECT pg_try_advisory_lock($1, $2)", &keys);
        Ok(within(self.deadline, locking).await?.get(0))
    }

    pub(super) async fn query(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LeaseError> {
        within(self.deadline, self.database.client.query(statement, values)).await
    }
}

async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, LeaseError> {
    Ok(timeout(deadline, answer).await.map_err(|_| LeaseError::Late)??)
}
