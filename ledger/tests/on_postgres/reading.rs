//! Reading orders: pages while a sale goes on, sales of one name, people, and requests that are refused.

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::filled::FilledLedger;
use crate::fixture::TOKEN;

/// Follows pages from this path until there are no more orders. Returns the ids of the orders, and where to go on later.
async fn follow(ledger: &FilledLedger, start: &str) -> (Vec<String>, String) {
    let (mut path, mut ids) = (start.to_owned(), Vec::new());
    loop {
        let (status, page) = ledger.read(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        let orders = page["orders"].as_array().unwrap();
        ids.extend(orders.iter().map(|order| order["orderId"].as_str().unwrap().to_owned()));
        path = page["next"].as_str().unwrap_or_else(|| panic!("no next page: {page}")).to_owned();
        if page["more"] == false {
            return (ids, path);
        }
    }
}

fn ids(creation: &str, numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|n| format!("{creation}-{n}")).collect()
}

#[tokio::test]
async fn last_page_leads_to_later_orders() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=25);
    let (first, next) = follow(&ledger, "/sales/flash/orders?limit=10").await;
    assert_eq!(first, ids("one", 1..=25));

    // When nothing is new, the place is the same.
    assert_eq!(follow(&ledger, &next).await, (Vec::new(), next.clone()));
    ledger.add_orders("flash", "one", 26..=47);
    assert_eq!(follow(&ledger, &next).await.0, ids("one", 26..=47));
}

#[tokio::test]
async fn pages_stay_in_their_sale_when_its_name_is_used_again() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=6);
    let (_, page) = ledger.read("/sales/flash/orders?limit=2").await;

    // When another sale of this name begins, a reader of the earlier one reads that to its end.
    ledger.add_orders("flash", "two", 1..=9);
    let (rest, next) = follow(&ledger, page["next"].as_str().unwrap()).await;
    assert_eq!(rest, ids("one", 3..=6));
    assert_eq!(follow(&ledger, &next).await.0, Vec::<String>::new());

    // Without a creation, the latest sale is read. A place without its sale would leave out orders of another one.
    assert_eq!(follow(&ledger, "/sales/flash/orders").await.0, ids("two", 1..=9));
    assert_eq!(ledger.read("/sales/flash/orders?after=4").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(ledger.read("/sales/flash/orders?creation=three").await.0, StatusCode::NOT_FOUND);
    let (_, first) = ledger.read("/sales/flash/orders/one-3?creation=one").await;
    assert_eq!(first["position"], 3, "{first}");
    assert_eq!(ledger.read("/sales/flash/totals?creation=one").await.1["orders"], 6);

    // The list has both.
    let (_, list) = ledger.read("/sales").await;
    let known: Vec<(&str, u64)> = list["sales"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| (sale["creation"].as_str().unwrap(), sale["orders"].as_u64().unwrap()))
        .collect();
    assert_eq!(known, [("two", 9), ("one", 6)], "{list}");
    assert_eq!(list["sales"][0]["productName"], "Chair");
    assert!(!list.to_string().contains("secret of order ids"), "{list}");
}

#[tokio::test]
async fn place_beyond_the_last_order_is_a_conflict() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=5);
    // As after PostgreSQL was restored from a backup that has fewer orders.
    let (status, problem) = ledger.read("/sales/flash/orders?creation=one&after=6").await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("after=0"), "{problem}");
}

#[tokio::test]
async fn orders_of_a_person_are_found_in_all_sales() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=5);
    ledger.add_orders("spring", "two", 1..=5);
    // The ids of these sales are e-mail addresses, so their spelling does not matter.
    let (status, found) = ledger.read("/users/Buyer-3%40EXAMPLE.com/orders").await;
    assert_eq!(status, StatusCode::OK, "{found}");
    let orders: Vec<(&str, &str)> = found["orders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|order| (order["sale"].as_str().unwrap(), order["orderId"].as_str().unwrap()))
        .collect();
    assert_eq!(orders, [("flash", "one-3"), ("spring", "two-3")], "{found}");
    assert_eq!(ledger.read("/sales/flash/users/BUYER-3%40example.com/order").await.1["orderId"], "one-3");
    assert_eq!(ledger.read("/users/nobody%40example.com/orders").await.1["orders"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn invalid_queries_and_formats_are_refused() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=5);
    for (query, word) in [
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("after=-1", "after"),
        ("after=9223372036854775808", "after"),
        ("afer=3", "afer"),
    ] {
        let (status, problem) = ledger.read(&format!("/sales/flash/orders?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{query}: {problem}");
    }
    let refused = ledger.send(Method::GET, "/sales/flash/orders", "image/png").await;
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    for (accept, format) in [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv"),
    ] {
        let response = ledger.send(Method::HEAD, "/sales/flash/orders", accept).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(format), "{accept}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(response.text().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn log_names_erased_orders_and_no_people() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=5);
    let people = "/sales/flash/users/buyer-3%40example.com/order";
    let stranger =
        Client::new().get(ledger.url(people)).bearer_auth("guess-guess-guess").send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(ledger.read("/users/buyer-3%40example.com").await.0, StatusCode::NOT_FOUND);
    let erase = Client::new().delete(ledger.url("/sales/flash/orders/one-3/user")).bearer_auth(TOKEN);
    assert_eq!(erase.send().await.unwrap().status(), StatusCode::NO_CONTENT);

    let log = ledger.log();
    assert!(!log.contains("buyer-3"), "{log}");
    let erased = log.lines().find(|line| line.contains("/sales/flash/orders/one-3/user"));
    assert!(erased.is_some_and(|line| line.contains("shop") && line.contains("204")), "{log}");
}

#[tokio::test]
async fn history_of_a_sale_is_readable() {
    let ledger = FilledLedger::start().await;
    ledger.add_orders("flash", "one", 1..=5);
    let (status, history) = ledger.read("/sales/flash/history").await;
    assert_eq!(status, StatusCode::OK, "{history}");
    let version = &history["versions"][0];
    assert_eq!((&version["version"], &version["state"]), (&1.into(), &"open".into()), "{history}");
    assert_eq!(version["endsAt"], "1970-01-01T00:01:00.000Z");
    assert!(!history.to_string().contains("secret of order ids"), "{history}");
}
