//! The work of a ledger: a connection to PostgreSQL, and rounds in which all sales are drained.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use rediscluster::{Cluster, backoff};
use service::failure_log::FailureLog;
use stock::ids::SaleId;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::database::DatabaseSettings;
use crate::drain::Progress;
use crate::metrics;
use crate::migrate;
use crate::sales::{RoundError, Sales};
use crate::writer::{WriteError, Writer};

/// Time between two refreshes of the cluster's map.
const MAP_PERIOD: Duration = Duration::from_millis(500);

/// Time after the latest order until the ledger looks less often, and how many times as long it waits then. A sale
/// without buyers costs little, and its first order still has its row within a second.
const REST: (Duration, u32) = (Duration::from_secs(1), 4);

/// A connection that wrote for this long was not refused at once.
const STABLE: Duration = Duration::from_secs(10);

/// Longest time for all migrations, and for the wait until another ledger has finished its own.
const MIGRATION_LIMIT: Duration = Duration::from_mins(5);

/// Drains all sales into PostgreSQL.
pub struct Ledger {
    cluster: Arc<Cluster>,
    database: DatabaseSettings,
    period: Duration,
    shown: Mutex<Shown>,
}

/// The state that metrics and probes show.
#[derive(Default)]
struct Shown {
    connected: bool,
    sales: BTreeMap<SaleId, Progress>,
}

impl Ledger {
    /// A ledger that reads from this cluster, with a round per period.
    pub fn new(cluster: Arc<Cluster>, database: DatabaseSettings, period: Duration) -> Self {
        Self { cluster, database, period, shown: Mutex::default() }
    }

    /// Returns whether orders can be written now.
    ///
    /// # Errors
    /// Returns the reason why not.
    pub fn check(&self) -> Result<(), String> {
        if self.shown().connected { Ok(()) } else { Err("PostgreSQL is not connected".to_owned()) }
    }

    /// Sets all gauges.
    pub fn update_gauges(&self) {
        let shown = self.shown();
        metrics::show(shown.connected, shown.sales.iter().map(|(id, progress)| (id.as_str(), progress)));
    }

    /// Runs until `stop` completes and the current round is finished.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let stop = stop.shared();
        let draining = async {
            let (mut sales, mut failures, mut logged) = (Sales::default(), 0, None);
            while let Some(writer) = self.connect(&mut sales, stop.clone()).await {
                let began = Instant::now();
                let Some(error) = self.drain(&writer, &mut sales, stop.clone()).await else { return };
                self.shown().connected = false;
                if began.elapsed() > STABLE {
                    (failures, logged) = (0, None);
                }
                // A server whose disk is full accepts connections, and refuses each statement.
                let reason = format!("{:#}", anyhow::Error::from(error));
                if logged.as_ref() != Some(&reason) {
                    tracing::warn!(
                        reason,
                        "orders are not written; the connection to PostgreSQL is opened again"
                    );
                    logged = Some(reason);
                }
                tokio::select! {
                    () = stop.clone() => return,
                    () = sleep(backoff(failures)) => failures += 1,
                }
            }
        };
        tokio::join!(draining, self.follow_map(stop.clone()));
    }

    /// Connects, and creates or updates the tables. Tries until it succeeds, and shows how the sales go on meanwhile.
    /// Returns `None` when `stop` completes.
    async fn connect(&self, sales: &mut Sales, mut stop: impl Future<Output = ()> + Unpin) -> Option<Writer> {
        let mut logged = None;
        for tries in 0.. {
            match self.try_connect().await {
                Ok(writer) => {
                    tracing::info!("connected to PostgreSQL");
                    self.shown().connected = true;
                    return Some(writer);
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    if logged.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "waiting for PostgreSQL");
                        logged = Some(reason);
                    }
                }
            }
            sales.look(&self.cluster).await;
            self.show(sales);
            tokio::select! {
                () = &mut stop => return None,
                () = sleep(backoff(tries)) => {}
            }
        }
        unreachable!("the range of tries has no end")
    }

    async fn try_connect(&self) -> anyhow::Result<Writer> {
        let deadline = self.database.timeout();
        let mut database =
            timeout(deadline, self.database.connect()).await.context("no answer in time")??;
        for migration in
            timeout(MIGRATION_LIMIT, migrate::run(&mut database)).await.context("the migrations")??
        {
            tracing::info!(migration, "tables migrated");
        }
        Ok(timeout(deadline, Writer::new(database, deadline)).await.context("no answer in time")??)
    }

    /// Drains all sales, a round per period, or less often while there are no orders. Returns the error that ended the
    /// connection, or `None` when `stop` completes.
    async fn drain(
        &self,
        writer: &Writer,
        sales: &mut Sales,
        mut stop: impl Future<Output = ()> + Unpin,
    ) -> Option<WriteError> {
        if let Err(error) = sales.reopen(writer).await {
            return Some(error);
        }
        let mut failures = FailureLog::default();
        let mut due_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return None,
                () = sleep_until(due_at) => {}
            }
            let began = Instant::now();
            let unreadable = match sales.round(&self.cluster, writer).await {
                Ok(()) => None,
                Err(RoundError::Redis(error)) => Some(error),
                Err(RoundError::Write(error)) => return Some(error),
            };
            failures.record("list of sales".into(), unreadable.as_ref());
            self.show(sales);
            let rests = sales.latest_news().is_none_or(|news_at| news_at.elapsed() > REST.0);
            due_at = began + if rests { self.period * REST.1 } else { self.period };
        }
    }

    fn show(&self, sales: &Sales) {
        self.shown().sales = sales.progress().collect();
    }

    async fn follow_map(&self, mut stop: impl Future<Output = ()> + Unpin) {
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = sleep(MAP_PERIOD) => {}
            }
            if let Err(error) = self.cluster.refresh().await {
                tracing::debug!(%error, "the cluster's map could not be refreshed");
            }
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
