//! The example consumer: effects take place once, although events come again.

#[expect(dead_code, reason = "the program's own entry point")]
#[path = "../../examples/consumer.rs"]
mod consumer;

use testkit::until;

use crate::world::{QUEUE, SOON, World};

#[tokio::test(flavor = "multi_thread")]
async fn effect_takes_place_once_when_events_come_again() {
    let mut world = World::new().await;
    world.add_orders("flash", 50);
    world.start_publisher();
    world.wait_for_cursor("amqp", "flash", 50).await;
    let (code, output) = world.replay(&["--sink", "amqp", "--sale", "flash", "--from", "21"]).await;
    assert_eq!(code, Some(0), "{output}");
    world.wait_for_cursor("amqp", "flash", 50).await;

    // Given a consumer that dies at any place, and another.
    let (amqp, database) = (world.broker().url(), world.database_url());
    for shipped in [10, 50] {
        let consuming = consumer::consume(&amqp, QUEUE, &database);
        let rows = "SELECT count(*) FROM shipments";
        let there = async || world.try_sql(rows).is_ok_and(|count| count.parse::<u32>().unwrap() >= shipped);
        tokio::select! {
            ended = consuming => panic!("{ended:?}"),
            arrived = until("orders are shipped", SOON, there) => arrived.unwrap(),
        }
    }
    let differing = "SELECT count(*) FROM order_events FULL JOIN shipments ON event_id = id::text \
                     WHERE id IS NULL OR event_id IS NULL OR order_id <> aggregateid";
    assert_eq!(world.sql(differing), "0");
}
