//! The orders API.

use std::collections::BTreeSet;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::fixture::{READ_TOKEN, Shop, TOKEN};

/// A shop with 25 orders in its ledger.
struct OrdersApi {
    shop: Shop,
    orders: BTreeSet<String>,
}

impl OrdersApi {
    async fn with_orders() -> Self {
        let shop = Shop::open(100).await;
        shop.start_ledger().await;
        let orders = shop.buy(0..25).await;
        shop.database.wait_for_orders(25).await;
        Self { shop, orders }
    }

    async fn send(&self, method: Method, path: &str, token: &str, accept: &str) -> Response {
        let request = Client::new().request(method, self.shop.database.ledger_url(1) + path);
        request.bearer_auth(token).header("accept", accept).send().await.unwrap()
    }

    async fn read(&self, path: &str) -> (StatusCode, Value) {
        let response = self.send(Method::GET, path, READ_TOKEN, "application/json").await;
        (response.status(), response.json().await.unwrap())
    }

    async fn export(&self, path: &str, accept: &str) -> String {
        let response = self.send(Method::GET, path, READ_TOKEN, accept).await;
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(accept));
        response.text().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_read_in_pages_and_as_files() {
    let api = OrdersApi::with_orders().await;

    // Given pages of ten, each order is on one of them.
    let (mut path, mut seen) = ("/sales/flash/orders?limit=10".to_owned(), Vec::new());
    loop {
        let (status, page) = api.read(&path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        seen.extend(page["orders"].as_array().unwrap().clone());
        path = page["next"].as_str().unwrap().to_owned();
        if page["more"] == false {
            break;
        }
    }
    let ids: Vec<&str> = seen.iter().map(|order| order["orderId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 25);
    assert!(ids.iter().all(|id| api.orders.contains(*id)), "{ids:?}");
    let positions: Vec<u64> = seen.iter().map(|order| order["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=25).collect::<Vec<u64>>());

    // Then the files have the same orders.
    let ndjson = api.export("/sales/flash/orders", "application/x-ndjson").await;
    let lines: Vec<Value> = ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, seen);
    let creation = api.read("/sales/flash/orders").await.1["creation"].as_str().unwrap().to_owned();
    let path = format!("/sales/flash/orders?creation={creation}&after=20");
    let csv = api.export(&path, "text/csv").await;
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "position,orderId,userId,purchasedAt,sale,correlationId");
    assert_eq!(rows.len(), 1 + 5, "{csv}");
    assert!(rows[1].starts_with(&format!("21,{},", ids[20])), "{csv}");

    let (_, totals) = api.read("/sales/flash/totals").await;
    assert_eq!(totals["orders"], 25);
    let minutes = totals["byMinute"].as_array().unwrap();
    assert_eq!(minutes.iter().map(|minute| minute["orders"].as_u64().unwrap()).sum::<u64>(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn person_is_erased_and_the_order_stays() {
    let api = OrdersApi::with_orders().await;
    let (status, order) = api.read("/sales/flash/users/buyer-00003/order").await;
    assert_eq!((status, &order["userId"]), (StatusCode::OK, &Value::from("buyer-00003")));
    let path = format!("/sales/flash/orders/{}", order["orderId"].as_str().unwrap());
    assert_eq!(api.read(&path).await, (StatusCode::OK, order));

    // Only an operator may erase, and may repeat it.
    let erased = format!("{path}/user");
    let refused = api.send(Method::DELETE, &erased, READ_TOKEN, "*/*").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    for _ in 0..2 {
        assert_eq!(api.send(Method::DELETE, &erased, TOKEN, "*/*").await.status(), StatusCode::NO_CONTENT);
    }

    let (_, order) = api.read(&path).await;
    assert!(order["userId"].is_null() && order["correlationId"].is_null(), "{order}");
    assert_eq!(api.read("/sales/flash/users/buyer-00003/order").await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.read("/sales/flash/totals").await.1["orders"], 25);
    let dump = api.shop.database.postgres.sql("SELECT order_events::text FROM order_events").unwrap();
    assert!(!dump.contains("buyer-00003"));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_get_problems() {
    let api = OrdersApi::with_orders().await;
    for (path, status) in [
        ("/sales/flash/orders?limit=many", StatusCode::BAD_REQUEST),
        ("/sales/flash/orders?after=-1", StatusCode::BAD_REQUEST),
        ("/sales/other/orders", StatusCode::NOT_FOUND),
        ("/sales/NO%20SALE/orders", StatusCode::NOT_FOUND),
        ("/sales/flash/orders/00000000000000", StatusCode::NOT_FOUND),
        ("/sales/flash/users/%00/order", StatusCode::NOT_FOUND),
    ] {
        let (answered, problem) = api.read(path).await;
        assert_eq!(answered, status, "{path}: {problem}");
        assert!(problem["correlationId"].is_string(), "{path}: {problem}");
    }
    let stranger = api.send(Method::GET, "/sales/flash/orders", "guess-guess-guess", "*/*").await;
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
}
