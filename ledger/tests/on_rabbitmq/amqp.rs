//! RabbitMQ as a sink, while parts of the way fail.

use testkit::until;

use crate::world::{SOON, World};

const FAILURES: &str = "flashsale_feed_failures_total";
const CONNECTED: &str = "flashsale_feed_connected{sink=\"amqp\"}";
const BEHIND: &str = "flashsale_feed_behind_orders{sink=\"amqp\",sale=\"flash\"}";

#[tokio::test(flavor = "multi_thread")]
async fn each_order_comes_when_the_broker_dies() {
    let mut world = World::new().await;
    world.start_publisher();
    world.wait_for_metric(1, CONNECTED, |connected| connected == 1.0).await;
    // Given a queue that the broker has on its disk. One that is a moment old can be lost when the broker is killed.
    world.broker().stop(SOON).await.unwrap();
    world.broker().restart().await.unwrap();
    world.add_orders("flash", 500);
    let started = async || world.cursor("amqp", "flash") > 0;
    until("orders are delivered", SOON, started).await.unwrap();

    // When the broker dies in the middle, and comes back while orders go on.
    world.broker().kill();
    world.add_orders("flash", 500);
    world.wait_for_metric(1, CONNECTED, |connected| connected == 0.0).await;
    world.broker().restart().await.unwrap();

    world.consume_all_orders().await;
    world.wait_for_cursor("amqp", "flash", 1_000).await;
    world.wait_for_metric(1, BEHIND, |behind| behind == 0.0).await;
    let latencies = world.metric(1, "flashsale_feed_latency_seconds_count{sink=\"amqp\"}").await;
    assert!(latencies >= Some(1_000.0), "{latencies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_come_again_when_a_ledger_dies_before_its_cursor_moves() {
    let mut world = World::new().await;
    world.add_orders("flash", 20);
    // Given a cursor that cannot be moved.
    world.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''the cursor is held''; END';
         CREATE TRIGGER refuse BEFORE UPDATE ON feeds FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    world.start_publisher();
    let published = async || world.log(1).contains("the cursor is held");
    until("the cursor is not moved", SOON, published).await.unwrap();
    world.process(1).kill();
    world.consume().await;
    let before = world.consumed().len();
    assert!(before > 0, "an order was published");
    assert_eq!(world.cursor("amqp", "flash"), 0);

    // When another ledger delivers, then the same events come, under the same ids.
    world.sql("DROP TRIGGER refuse ON feeds");
    world.start_publisher();
    world.consume_all_orders().await;
    assert!(world.consumed().len() >= before + 20, "{}", world.consumed().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_takes_over_when_one_freezes() {
    let mut world = World::new().await;
    world.add_orders("flash", 10);
    world.start_publisher();
    world.wait_for_cursor("amqp", "flash", 10).await;
    world.start_publisher();
    let waits = async || world.log(2).contains("another ledger delivers");
    until("the second ledger waits", SOON, waits).await.unwrap();

    world.process(1).freeze();
    world.add_orders("flash", 10);
    world.wait_for_cursor("amqp", "flash", 20).await;

    // Then the first one, which goes on, moves no cursor.
    world.sql("UPDATE feeds SET position = 10, moved_at = now()");
    world.wait_for_cursor("amqp", "flash", 20).await;
    world.process(1).thaw();
    let lost = async || world.log(1).contains("nothing is delivered by this ledger");
    until("the first ledger notices", SOON, lost).await.unwrap();
    world.process(2).kill();
    world.add_orders("flash", 10);
    world.wait_for_cursor("amqp", "flash", 30).await;
    world.consume_all_orders().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_without_a_queue_waits_and_stops_its_sale_only() {
    let mut world = World::new().await;
    world.create_exchange().await;
    world.bind("other").await;
    world.add_orders("flash", 10);
    world.add_orders("other", 10);
    let publisher = world.publisher().env("AMQP_DECLARE", "check");
    world.start(publisher);

    world.wait_for_cursor("amqp", "other", 10).await;
    let unroutable = format!("{FAILURES}{{sink=\"amqp\",reason=\"unroutable\"}}");
    world.wait_for_metric(1, &unroutable, |failures| failures >= 1.0).await;
    world.wait_for_metric(1, BEHIND, |behind| behind == 10.0).await;
    assert_eq!(world.cursor("amqp", "flash"), 0);
    assert!(world.log(1).contains("NO_ROUTE"), "{}", world.log(1));

    world.bind("flash").await;
    world.consume_all_orders().await;
    assert!(world.log(1).contains("orders are delivered again"), "{}", world.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_without_memory_is_waited_for() {
    let mut world = World::new().await;
    world.add_orders("flash", 10);
    world.start_publisher();
    world.wait_for_cursor("amqp", "flash", 10).await;

    world.broker().block_publishers().unwrap();
    world.add_orders("flash", 10);
    world.wait_for_metric(1, CONNECTED, |connected| connected == 0.0).await;
    let blocked = format!("{FAILURES}{{sink=\"amqp\",reason=\"blocked\"}}");
    world.wait_for_metric(1, &blocked, |failures| failures == 1.0).await;
    world
        .wait_for_metric(1, "flashsale_feed_behind_seconds{sink=\"amqp\",sale=\"flash\"}", |age| age > 2.0)
        .await;
    assert_eq!(world.cursor("amqp", "flash"), 10);

    world.broker().unblock_publishers().unwrap();
    world.consume_all_orders().await;
    assert!(!world.log(1).contains("opened again"), "{}", world.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_broker_is_replaced_by_a_new_connection() {
    let mut world = World::new().await;
    world.add_orders("flash", 10);
    world.start_publisher();
    world.wait_for_cursor("amqp", "flash", 10).await;

    world.broker().freeze();
    world.add_orders("flash", 10);
    let timeouts = format!("{FAILURES}{{sink=\"amqp\",reason=\"timeout\"}}");
    world.wait_for_metric(1, &timeouts, |failures| failures >= 2.0).await;
    world.broker().thaw();
    world.consume_all_orders().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_is_delivered_over_one_session() {
    let mut world = World::new().await;
    world.add_orders("flash", 10_000);
    world.add_orders("other", 10_000);
    world.start_publisher();
    world.wait_for_cursor("amqp", "flash", 10_000).await;
    world.wait_for_cursor("amqp", "other", 10_000).await;
    assert!(!world.log(1).contains("nothing is delivered"), "{}", world.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_exchange_is_reported_when_it_is_only_checked() {
    let mut world = World::new().await;
    world.add_orders("flash", 10);
    let publisher = world.publisher().env("AMQP_DECLARE", "check");
    world.start(publisher);
    let reported = async || world.log(1).contains("NOT_FOUND");
    until("the missing exchange is reported", SOON, reported).await.unwrap();
    world.create_exchange().await;
    world.bind("flash").await;
    world.consume_all_orders().await;
}
