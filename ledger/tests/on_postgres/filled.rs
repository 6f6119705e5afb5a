//! A ledger with generated orders and no Redis: the orders API needs PostgreSQL only.

use std::fs;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use testkit::Process;

use crate::fixture::{Database, READ_TOKEN, SOON};

/// An address at which no Redis listens.
const NO_REDIS: &str = "redis://127.0.0.1:1";

/// A ledger that serves the orders of its database.
pub(crate) struct FilledLedger {
    pub(crate) database: Database,
    pub(crate) process: Process,
}

impl FilledLedger {
    /// Starts a ledger over empty tables.
    pub(crate) async fn start() -> Self {
        let database = Database::start().await;
        let migrated = database.ledger(1, NO_REDIS).arg("migrate").spawn().unwrap().wait(SOON).await.unwrap();
        assert!(migrated.success());
        let process = database.ledger(1, NO_REDIS).spawn().unwrap();
        database.wait_for(1, "/healthz", StatusCode::OK).await;
        Self { database, process }
    }

    /// Adds a sale, or adds orders to it. Each order has the number of its position in all its texts.
    pub(crate) fn add_orders(&self, sale: &str, creation: &str, orders: std::ops::RangeInclusive<u32>) {
        let (first, last) = (orders.start(), orders.end());
        let config = r#"{"state": "open", "userIds": "email", "totalStock": 100, "window": {"startsAt": 0, "endsAt": 60000},
            "product": {"name": "Chair", "price": 49.9, "description": ""}, "layout": {"creation": "secret of order ids"}}"#;
        self.database
            .postgres
            .sql(&format!(
                "INSERT INTO sale_versions VALUES ('{sale}', '{creation}', 1, '{config}') ON CONFLICT DO NOTHING;
                 INSERT INTO positions VALUES ('{sale}', '{creation}', {last})
                     ON CONFLICT (sale, creation) DO UPDATE SET position = {last};
                 INSERT INTO order_events (sale, creation, shard, incarnation, seq, n, position, id, aggregatetype,
                     aggregateid, type, payload, user_id, at)
                 SELECT '{sale}', '{creation}', 0, 'i', n, 0, n, gen_random_uuid(), 'order', '{creation}-' || n,
                     'order.purchased', jsonb_build_object('sale', '{sale}', 'orderId', '{creation}-' || n, 'userId',
                     'buyer-' || n || '@example.com', 'purchasedAt', '2026-11-28T20:00:00.000Z', 'correlationId', 'c-' || n),
                     'buyer-' || n || '@example.com', to_timestamp(n)
                 FROM generate_series({first}, {last}) AS n"
            ))
            .unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.database.ledger_url(1) + path
    }

    pub(crate) async fn send(&self, method: Method, path: &str, accept: &str) -> Response {
        let request = Client::new().request(method, self.url(path)).bearer_auth(READ_TOKEN);
        request.header("accept", accept).send().await.unwrap()
    }

    pub(crate) async fn read(&self, path: &str) -> (StatusCode, Value) {
        let response = self.send(Method::GET, path, "application/json").await;
        (response.status(), response.json().await.unwrap())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap()
    }
}
