//! The way of orders out of Redis: the comparison reports a lost, a forged, a doubled and a wrong order, and a consumer
//! that does not act.

use chaos::{Orders, audit_feed, audit_orders};

use crate::fixture::{TesterFixture, assert_clean, assert_reports};

/// Purchases in each test.
const BOUGHT: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn sabotaged_orders_are_reported() {
    // Given a sale whose orders are all in PostgreSQL and at the shop.
    let fixture = TesterFixture::intact().await;
    let orders = Orders::start(fixture.stack.clone()).await.unwrap();
    fixture.buy_at(0, BOUGHT).await;
    let (rows, found) = audit(&fixture, &orders).await;
    assert_clean(&found);
    assert_eq!(rows, BOUGHT as u64);
    let (parcels, found) = audit_feed(&orders).await.unwrap();
    assert_clean(&found);
    assert_eq!(parcels, 2 * BOUGHT as u64);

    // When the shop confirms an event and does not act on it, then its parcel is missing.
    orders.sql("INSERT INTO shop.parcels SELECT * FROM shop.parcels LIMIT 1").await.unwrap();
    let (_, found) = audit_feed(&orders).await.unwrap();
    assert_reports(&found, "has 2 parcels");

    // When a ledger wrote another order id, an order that nobody has, or one order too few, then each is reported.
    orders.sql("UPDATE order_events SET aggregateid = 'OTHER' WHERE position = 3").await.unwrap();
    assert_reports(&audit(&fixture, &orders).await.1, "but the claim is");
    orders.sql("UPDATE order_events SET user_id = 'eve' WHERE position = 4").await.unwrap();
    let (_, found) = audit(&fixture, &orders).await;
    assert_reports(&found, "the row of eve");
    assert_reports(&found, "has no row");
    orders.sql("DELETE FROM order_events WHERE position = 7").await.unwrap();
    assert_reports(&audit(&fixture, &orders).await.1, "11 of 12 orders are in PostgreSQL");
    let (_, found) = audit_feed(&orders).await.unwrap();
    assert_reports(&found, "has no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn swallowed_event_is_reported() {
    let fixture = TesterFixture::intact().await;
    let orders = Orders::start(fixture.stack.clone()).await.unwrap();
    orders.swallow_next_event();
    fixture.buy_at(0, BOUGHT).await;
    assert_clean(&audit(&fixture, &orders).await.1);
    assert_reports(&audit_feed(&orders).await.unwrap().1, "has 0 parcels");
}

async fn audit(fixture: &TesterFixture, orders: &Orders) -> (u64, Vec<String>) {
    audit_orders(&fixture.stack, orders, fixture.crowd.sale()).await.unwrap()
}
