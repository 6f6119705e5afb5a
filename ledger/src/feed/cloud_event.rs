//! The form of an event outside: CloudEvents 1.0, structured as JSON.

use rediscluster::EpochMs;
use serde::Serialize;
use serde_json::Value;
use service::time::iso8601;

use super::cursor::SaleKey;

/// The content type of CloudEvents as JSON.
pub(crate) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// An event that can be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Number of the order in its sale.
    pub(crate) position: i64,
    /// The same in each delivery.
    pub(crate) id: String,
    /// Type of the event.
    pub(crate) kind: String,
    /// The type and the sale, by which consumers choose events.
    pub(crate) routing_key: String,
    /// Events of one shard are delivered in their order.
    pub(crate) shard: i32,
    pub(crate) purchased_at: EpochMs,
    /// The event as JSON.
    pub(crate) body: Vec<u8>,
}

/// The columns of an order's row.
pub(crate) struct Row {
    pub(crate) position: i64,
    pub(crate) id: String,
    pub(crate) shard: i32,
    pub(crate) kind: String,
    pub(crate) order: String,
    pub(crate) payload: Value,
    pub(crate) purchased_at: EpochMs,
}

/// `position` and `partitionkey` are extension attributes: events with one partition key come in the order of their
/// positions.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    partitionkey: String,
    position: i64,
    data: &'a Value,
}

impl Event {
    /// The event of a row.
    pub(crate) fn new(sale: &SaleKey, row: Row) -> Self {
        let event = CloudEvent {
            specversion: "1.0",
            id: &row.id,
            source: format!("/sales/{}", sale.sale),
            kind: &row.kind,
            subject: &row.order,
            time: iso8601(row.purchased_at),
            datacontenttype: "application/json",
            partitionkey: format!("{}/{}/{}", sale.sale, sale.creation, row.shard),
            position: row.position,
            data: &row.payload,
        };
        let body = serde_json::to_vec(&event).expect("an event has only plain fields");
        Self {
            position: row.position,
            id: row.id,
            routing_key: format!("{}.{}", row.kind, sale.sale),
            kind: row.kind,
            shard: row.shard,
            purchased_at: row.purchased_at,
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn event_has_the_attributes_of_cloudevents() {
        let sale = SaleKey { sale: "flash".into(), creation: "a1".into() };
        let row = Row {
            position: 7,
            id: "daaa286b-4a74-5cc2-931d-b580c8e036cc".into(),
            shard: 3,
            kind: "order.purchased".into(),
            order: "QWGK1PFYHPXQSB".into(),
            payload: json!({"userId": "ann"}),
            purchased_at: 1_795_291_200_007,
        };
        let body: Value = serde_json::from_slice(&Event::new(&sale, row).body).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": "daaa286b-4a74-5cc2-931d-b580c8e036cc",
            "source": "/sales/flash",
            "type": "order.purchased",
            "subject": "QWGK1PFYHPXQSB",
            "time": "2026-11-21T20:00:00.007Z",
            "datacontenttype": "application/json",
            "partitionkey": "flash/a1/3",
            "position": 7,
            "data": {"userId": "ann"},
        });
        assert_eq!(body, expected);
    }
}
