//! The metrics of a ledger. Each metric is defined here and nowhere else, and its doc comment is its HELP.

pub(crate) mod feed;

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use service::metrics::Exporter;

use crate::drain::Progress;

service::name_metrics! {
    /// Orders that this ledger wrote into PostgreSQL.
    Counter ROWS = "flashsale_ledger_rows_total";
    /// Orders in Redis that are not in PostgreSQL yet.
    Gauge BEHIND = "flashsale_ledger_behind_orders";
    /// The same for each shard of a sale that has not ended, or is not drained.
    Gauge SHARD_BEHIND = "flashsale_ledger_shard_behind_orders";
    /// Time since all orders of a sale were in PostgreSQL.
    Gauge BEHIND_SECONDS = "flashsale_ledger_behind_seconds";
    /// Shards that stand still because their orders contradict the ledger, until a person acts. Must be 0.
    Gauge CONFLICTS = "flashsale_ledger_conflicts";
    /// 1 while the ledger has a connection to PostgreSQL.
    Gauge CONNECTED = "flashsale_ledger_database_connected";
    /// Time to write a batch of orders.
    Histogram STATEMENT = "flashsale_ledger_statement_duration_seconds";
}

/// Installs the recorder for the metrics of a ledger.
///
/// # Errors
/// Fails when another recorder is installed already.
pub fn install() -> anyhow::Result<Exporter> {
    let exporter = Exporter::install(env!("CARGO_PKG_VERSION"), describe_all)?;
    let _registered = histogram!(STATEMENT);
    Ok(exporter)
}

fn describe_all() {
    describe();
    feed::describe_all();
}

/// Records the duration of a statement that wrote orders.
pub(crate) fn statement(took: Duration) {
    histogram!(STATEMENT).record(took);
}

/// Counts orders that were written.
pub(crate) fn written(sale: &str, orders: usize) {
    counter!(ROWS, "sale" => sale.to_owned()).increment(orders as u64);
}

/// Shows whether the ledger is connected, and how far each sale is drained.
pub(crate) fn show<'a>(connected: bool, sales: impl Iterator<Item = (&'a str, &'a Progress)>) {
    gauge!(CONNECTED).set(f64::from(u8::from(connected)));
    for (sale, progress) in sales {
        // A counter that first appears at 1 has no rate.
        written(sale, 0);
        let sale = sale.to_owned();
        for (shard, behind) in progress.shards.iter().enumerate() {
            gauge!(SHARD_BEHIND, "sale" => sale.clone(), "shard" => shard.to_string()).set(*behind as f64);
        }
        gauge!(BEHIND, "sale" => sale.clone()).set(progress.behind as f64);
        gauge!(BEHIND_SECONDS, "sale" => sale.clone()).set(progress.behind_for.as_secs_f64());
        gauge!(CONFLICTS, "sale" => sale).set(progress.conflicts as f64);
    }
}
