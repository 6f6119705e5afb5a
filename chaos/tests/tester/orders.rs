//! The way of orders out of Redis: the comparison reports a lost, a forged, a doubled and a wrong order, and a consumer
//! that does not act.

use std::time::Duration;

use anyhow::ensure;
use chaos::{OrderTestbed, audit_feed, audit_orders};
use testkit::until_ok;

use crate::fixture::{TesterFixture, assert_clean, assert_reports};

/// Purchases in each test.
const BOUGHT: usize = 12;

/// Time limit for all orders to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// Time limit for what does not come.
const NO_ARRIVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn sabotaged_orders_are_reported() {
    // Given a sale whose orders are all in PostgreSQL and at the shop.
    let fixture = TesterFixture::intact().await;
    let orders = OrderTestbed::start(fixture.stack.clone()).await.unwrap();
    fixture.buy_at(0, BOUGHT).await;
    let (rows, found) = audit_orders(&orders, fixture.crowd.sale(), ARRIVAL_LIMIT).await.unwrap();
    assert_clean(&found);
    assert_eq!(rows, BOUGHT as u64);
    let (parcels, found) = audit_feed(&orders, ARRIVAL_LIMIT).await.unwrap();
    assert_clean(&found);
    assert_eq!(parcels, 2 * BOUGHT as u64);

    // When a parcel is packed twice, a row has another order, belongs to another user, or is deleted, each is reported.
    orders.sql("INSERT INTO shop.parcels SELECT * FROM shop.parcels LIMIT 1").await.unwrap();
    assert_reports(&audit_feed(&orders, NO_ARRIVAL).await.unwrap().1, "has 2 parcels");
    orders.sql("UPDATE order_events SET aggregateid = 'OTHER' WHERE position = 3").await.unwrap();
    assert_reports(&findings(&fixture, &orders).await, "but the claim is");
    orders.sql("UPDATE order_events SET user_id = 'eve' WHERE position = 4").await.unwrap();
    assert_reports(&findings(&fixture, &orders).await, "the row of eve");
    orders.sql("DELETE FROM order_events WHERE position = 7").await.unwrap();
    assert_reports(&findings(&fixture, &orders).await, "all orders in PostgreSQL: not within");
    assert_reports(&findings(&fixture, &orders).await, "has no row");
    assert_reports(&audit_feed(&orders, NO_ARRIVAL).await.unwrap().1, "has no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn swallowed_and_skipped_events_are_reported() {
    // Given a shop that confirms an event without acting on it.
    let fixture = TesterFixture::intact().await;
    let orders = OrderTestbed::start(fixture.stack.clone()).await.unwrap();
    orders.swallow_next_event();
    fixture.buy_at(0, BOUGHT).await;
    assert_clean(&audit_orders(&orders, fixture.crowd.sale(), ARRIVAL_LIMIT).await.unwrap().1);
    let swallowed = async || {
        let (parcels, _) = audit_feed(&orders, NO_ARRIVAL).await?;
        ensure!(parcels == 2 * BOUGHT as u64 - 1, "{parcels} parcels");
        Ok(())
    };
    until_ok("all parcels but one", ARRIVAL_LIMIT, swallowed).await.unwrap();
    assert_reports(&audit_feed(&orders, NO_ARRIVAL).await.unwrap().1, "has 0 parcels");

    // When the cursor of a sink skips orders, they are not delivered.
    orders.sql("UPDATE feeds SET position = position + 1000, moved_at = now()").await.unwrap();
    fixture.buy_at(1, 1).await;
    assert_clean(&audit_orders(&orders, fixture.crowd.sale(), ARRIVAL_LIMIT).await.unwrap().1);
    assert_reports(&audit_feed(&orders, NO_ARRIVAL).await.unwrap().1, "was not delivered");
}

async fn findings(fixture: &TesterFixture, orders: &OrderTestbed) -> Vec<String> {
    audit_orders(orders, fixture.crowd.sale(), NO_ARRIVAL).await.unwrap().1
}
