//! The table of orders as an outbox for Debezium.

use crate::world::World;

/// Columns and types that Debezium's outbox event router reads without further settings.
const ROUTER_COLUMNS: [(&str, &str); 5] = [
    ("aggregateid", "text"),
    ("aggregatetype", "text"),
    ("id", "uuid"),
    ("payload", "jsonb"),
    ("type", "text"),
];

#[tokio::test(flavor = "multi_thread")]
async fn table_of_orders_has_the_columns_of_an_outbox() {
    let world = World::new().await;
    let columns = world.sql(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'order_events' \
         AND column_name IN ('id', 'aggregatetype', 'aggregateid', 'type', 'payload') AND is_nullable = 'NO' ORDER BY 1",
    );
    let expected = ROUTER_COLUMNS.map(|(name, kind)| format!("{name}|{kind}"));
    assert_eq!(columns, expected.join("\n"));

    // The settings in the documentation name the table and existing columns.
    let docs = std::fs::read_to_string(testkit::workspace_root().join("docs/feed.md")).unwrap();
    let settings = docs.split("```json").find(|block| block.contains("EventRouter")).unwrap();
    let settings: serde_json::Value = serde_json::from_str(settings.split("```").next().unwrap()).unwrap();
    let config = &settings["config"];
    assert_eq!(config["table.include.list"], "public.order_events");
    let placed = config["transforms.outbox.table.fields.additional.placement"].as_str().unwrap();
    let columns = placed.split(',').map(|field| field.split(':').next().unwrap());
    for column in columns {
        let found = format!(
            "SELECT count(*) FROM information_schema.columns WHERE table_name = 'order_events' AND column_name = '{column}'"
        );
        assert_eq!(world.sql(&found), "1", "{column}");
    }
}
