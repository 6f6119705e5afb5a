//! Orders on their way into PostgreSQL, while parts of the way fail.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use stock::presence::{Presence, ProcessKind};
use testkit::{Failover, until};

use crate::fixture::{SOON, Shop};

const BEHIND: &str = "flashsale_ledger_behind_orders{sale=\"flash\"}";
const CONFLICTS: &str = "flashsale_ledger_conflicts{sale=\"flash\"}";

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_written_once_when_two_ledgers_run() {
    let shop = Shop::open(400).await;
    shop.start_ledger().await;
    shop.start_ledger().await;

    // When one of them is killed during the sale, and another is started.
    let mut orders = shop.buy(0..150).await;
    shop.ledger(1).kill();
    orders.extend(shop.buy(150..300).await);
    shop.start_ledger().await;
    orders.extend(shop.buy(300..450).await);

    shop.database.wait_for_orders(400).await;
    assert_eq!(orders.len(), 400);
    shop.assert_orders(&orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_catches_up_when_postgres_was_away() {
    let shop = Shop::open(1_000).await;
    shop.start_ledger().await;
    let mut orders = shop.buy(0..100).await;

    shop.database.wait_for_orders(100).await;

    // When PostgreSQL dies, the sale goes on, and the ledger says that it is not ready, and how far it is behind.
    shop.database.postgres.kill();
    orders.extend(shop.buy(100..300).await);
    shop.database.wait_for(1, "/readyz", StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(shop.database.get(1, "/healthz").await.unwrap().0, StatusCode::OK);
    wait_for_lag(&shop, 200).await;
    shop.database.postgres.restart().await.unwrap();

    shop.database.wait_for(1, "/readyz", StatusCode::OK).await;
    shop.database.wait_for_orders(orders.len()).await;
    shop.assert_orders(&orders);
    wait_for_lag(&shop, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_finishes_its_work_when_postgres_freezes() {
    let shop = Shop::open(1_000).await;
    shop.start_ledger().await;
    let mut orders = shop.buy(0..100).await;
    shop.database.postgres.freeze();
    orders.extend(shop.buy(100..200).await);
    shop.database.wait_for(1, "/readyz", StatusCode::SERVICE_UNAVAILABLE).await;
    shop.database.postgres.thaw();
    shop.database.wait_for_orders(orders.len()).await;
    shop.assert_orders(&orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_without_copies_do_not_reach_the_ledger() {
    let shop = Shop::open(100).await;
    let orders = shop.buy(0..20).await;
    // Given orders that a failover would take back.
    let replicas = shop.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| shop.stack.redis().freeze(replica));
    shop.start_ledger().await;
    wait_for_lag(&shop, 20).await;

    assert_eq!(shop.database.count("order_events"), 0);
    replicas.iter().for_each(|&replica| shop.stack.redis().thaw(replica));

    shop.database.wait_for_orders(20).await;
    shop.assert_orders(&orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_order_of_a_user_stops_its_shard_until_it_is_resolved() {
    let shop = Shop::open(100).await;
    shop.start_ledger().await;
    let mut orders = shop.buy(0..1).await;
    shop.database.wait_for_orders(1).await;

    // Given a ledger with an order of a user who has not bought.
    shop.database
        .postgres
        .sql(
            "INSERT INTO order_events SELECT sale, creation, shard, incarnation, 999, 0, 999, gen_random_uuid(), \
             aggregatetype, 'forged', type, payload, 'buyer-00001', at FROM order_events",
        )
        .unwrap();

    // When this user buys, the shard stands still, and the others go on.
    orders.extend(shop.buy(1..60).await);
    until("the conflict is shown", SOON, async || shop.database.metric(1, CONFLICTS).await == Some(1.0))
        .await
        .unwrap();
    assert!(shop.log(1).contains("PostgreSQL refuses the rows"), "{}", shop.log(1));
    let of_user = "order_events WHERE user_id = 'buyer-00001' AND aggregateid <> 'forged'";
    assert_eq!(shop.database.count(of_user), 0);

    // Then it goes on when a person has resolved the conflict.
    shop.database.postgres.sql("DELETE FROM order_events WHERE aggregateid = 'forged'").unwrap();
    shop.database.wait_for_orders(orders.len()).await;
    shop.assert_orders(&orders);
    until("the conflict is over", SOON, async || shop.database.metric(1, CONFLICTS).await == Some(0.0))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_behind_its_cursor_is_reported() {
    let shop = Shop::open(100).await;
    shop.start_ledger().await;
    let orders = shop.buy(0..30).await;
    shop.database.wait_for_orders(30).await;

    // Given a cursor ahead of its shard, as after a loss of data in Redis.
    shop.ledger(1).kill();
    shop.database.postgres.sql("UPDATE cursors SET seq = seq + 5 WHERE shard = 0").unwrap();
    shop.start_ledger().await;

    until("the conflict is shown", SOON, async || shop.database.metric(2, CONFLICTS).await == Some(1.0))
        .await
        .unwrap();
    assert!(shop.log(2).contains("Redis has lost data"), "{}", shop.log(2));
    assert_eq!(orders.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_needs_no_right_beyond_those_of_its_user() {
    let shop = Shop::open_secured(200).await;
    shop.start_ledger().await;
    let mut orders = shop.buy(0..60).await;

    // When a replica takes over, and a server forgets the ledger's connections.
    let replica = shop.stack.redis().replicas().await[0];
    shop.stack.redis().fail_over_to(replica, Failover::Agreed).await.unwrap();
    orders.extend(shop.buy(60..120).await);
    shop.database.wait_for_orders(orders.len()).await;

    shop.assert_orders(&orders);
    let mut refused = Vec::new();
    for server in shop.stack.redis().servers().await {
        let mut connection = shop.stack.redis().connection(server.addr).await.unwrap();
        let log = redis::cmd("ACL").arg("LOG").query_async::<redis::Value>(&mut connection).await.unwrap();
        refused.extend(Some(format!("{log:?}")).filter(|log| log.contains("ledger")));
    }
    assert_eq!(refused, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_is_on_the_list_of_processes_while_it_runs() {
    let shop = Shop::open(10).await;
    let cluster = shop.cluster().await;
    let ledgers = async || {
        let list = cluster.poll(Presence { update: None }).await.unwrap();
        list.processes.into_iter().filter(|process| process.info.kind == ProcessKind::Ledger).count()
    };

    shop.start_ledger().await;
    until("the ledger is listed", SOON, async || ledgers().await == 1).await.unwrap();

    shop.ledger(1).stop(SOON).await.unwrap();
    assert_eq!(ledgers().await, 0, "it reports that it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_of_a_sale_end_with_it() {
    let shop = Shop::open(50).await;
    shop.start_ledger().await;
    let orders = shop.buy(0..50).await;
    shop.database.wait_for_orders(orders.len()).await;
    let shard = "flashsale_ledger_shard_behind_orders{sale=\"flash\",shard=\"0\"}";
    until("the shard is shown", SOON, async || shop.database.metric(1, shard).await == Some(0.0))
        .await
        .unwrap();

    // When the sale ends, its shards are shown no longer.
    let (admin, coordinator) = (shop.stack.admin(), shop.stack.coordinators()[0].url().to_owned());
    let request = admin.post(&coordinator, "sales/flash/end");
    assert!(request.json(&serde_json::json!({})).send().await.unwrap().status().is_success());
    until("the shard is not shown", SOON, async || shop.database.metric(1, shard).await.is_none())
        .await
        .unwrap();
    wait_for_lag(&shop, 0).await;

    // When it is on the list no longer, nothing of it is shown.
    shop.stack.coordinators()[0].process().kill();
    let mut removed = 0;
    for primary in shop.stack.redis().primaries().await {
        let mut connection = shop.stack.redis().connection(primary).await.unwrap();
        let mut remove = redis::cmd("SREM");
        remove.arg(stock::layout::SALES_KEY).arg("flash");
        // All primaries but one answer that the key is elsewhere.
        removed += remove.query_async::<u64>(&mut connection).await.unwrap_or_default();
    }
    assert_eq!(removed, 1);
    until("the sale is not shown", SOON, async || shop.database.metric(1, BEHIND).await.is_none())
        .await
        .unwrap();
}

/// Waits until the ledger shows that this many orders are not written.
async fn wait_for_lag(shop: &Shop, orders: u64) {
    let shown = async || shop.database.metric(1, BEHIND).await == Some(orders as f64);
    until(&format!("{orders} orders are not written"), SOON, shown).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_of_a_sale_are_recorded() {
    let shop = Shop::open(100).await;
    shop.start_ledger().await;
    let (admin, coordinator) = (shop.stack.admin(), shop.stack.coordinators()[0].url().to_owned());
    for action in ["pause", "resume"] {
        let request = admin.post(&coordinator, &format!("sales/flash/{action}"));
        assert!(request.json(&serde_json::json!({})).send().await.unwrap().status().is_success());
        let state = if action == "pause" { "paused" } else { "open" };
        let latest = "SELECT config->>'state' FROM sale_versions ORDER BY version DESC LIMIT 1";
        let recorded = async || shop.database.postgres.sql(latest).unwrap() == state;
        until("the change is in PostgreSQL", SOON, recorded).await.unwrap();
    }
    let versions = shop.database.postgres.sql("SELECT version FROM sale_versions").unwrap();
    let versions: BTreeSet<&str> = versions.lines().collect();
    assert_eq!(versions.len(), 3, "{versions:?}");

    // Then each change is there with its origin.
    let made =
        "SELECT change->>'change' FROM sale_changes WHERE change->>'operator' IS NOT NULL ORDER BY version";
    let recorded = async || shop.database.postgres.sql(made).unwrap() == "pause\nresume";
    until("the changes are in PostgreSQL", SOON, recorded).await.unwrap();
}
