//! Faults of PostgreSQL. Selling does not notice them.

use std::{fs, time::Duration};

use anyhow::Result;
use testkit::{until, until_ok};
use tokio::time::sleep;

use super::{FaultEffect, ORDERS_STANDSTILL, hold};
use crate::{orders::SmallDisk, testbed::Testbed};

/// Time limit for a full disk to be noticed, and for a server to stop.
const NOTICE_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn postgres_killed(testbed: &Testbed) -> Result<FaultEffect> {
    testbed.orders.postgres().kill();
    hold().await;
    testbed.orders.postgres().restart().await?;
    Ok(FaultEffect::on("PostgreSQL", Vec::new()))
}

/// SIGINT is the fast shutdown: transactions end, connections are closed, and nothing has to be recovered.
pub(super) async fn postgres_restarted(testbed: &Testbed) -> Result<FaultEffect> {
    testbed.orders.postgres().stop(NOTICE_LIMIT).await?;
    testbed.orders.postgres().restart().await?;
    Ok(FaultEffect::on("PostgreSQL", Vec::new()))
}

pub(super) async fn postgres_frozen(testbed: &Testbed) -> Result<FaultEffect> {
    testbed.orders.postgres().freeze();
    sleep(ORDERS_STANDSTILL).await;
    testbed.orders.postgres().thaw();
    Ok(FaultEffect::on("PostgreSQL", Vec::new()))
}

/// The orders move to a small disk, which is then full for a while.
pub(super) async fn postgres_disk_full(testbed: &Testbed) -> Result<FaultEffect> {
    let folder = testbed.stack.folder().path().join("postgres");
    let disk = SmallDisk::mount(folder.join("small-disk"), &folder.join("data"))?;
    let path = disk.path().display();
    move_orders(testbed, &format!("CREATE TABLESPACE small LOCATION '{path}'"), "small").await?;
    disk.fill()?;
    let refused = filled(testbed).await;
    disk.empty()?;
    let refused = refused?;
    move_orders(testbed, "SELECT 1", "pg_default").await?;
    testbed.orders.sql("DROP TABLESPACE small").await?;
    Ok(FaultEffect::on(format!("PostgreSQL; {refused} rows fit"), Vec::new()))
}

/// Waits until no more rows fit, and a while longer. Returns the number of rows that still fitted.
async fn filled(testbed: &Testbed) -> Result<u64> {
    let (before, seen) = (testbed.orders.count_rows().await?, server_log(testbed).len());
    // The server writes each error to its log.
    let is_full = async || server_log(testbed)[seen..].contains("No space left on device");
    until("a full disk", NOTICE_LIMIT, is_full).await?;
    sleep(ORDERS_STANDSTILL / 2).await;
    Ok(testbed.orders.count_rows().await? - before)
}

fn server_log(testbed: &Testbed) -> String {
    let log = fs::read(testbed.orders.postgres().process().log()).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

async fn move_orders(testbed: &Testbed, first: &str, tablespace: &str) -> Result<()> {
    testbed.orders.sql(first).await?;
    let relations = "SELECT c.relname, c.relkind FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid \
                     WHERE c.oid = 'order_events'::regclass OR i.indrelid = 'order_events'::regclass";
    for relation in testbed.orders.sql(relations).await?.lines() {
        let Some((name, kind)) = relation.split_once('|') else { continue };
        let kind = if kind == "i" { "INDEX" } else { "TABLE" };
        // It waits for statements that write; a ledger gives them up after its own limit.
        let moved = async || {
            testbed.orders.sql(&format!("ALTER {kind} {name} SET TABLESPACE {tablespace}")).await.map(drop)
        };
        until_ok("moved orders", NOTICE_LIMIT, moved).await?;
    }
    Ok(())
}
