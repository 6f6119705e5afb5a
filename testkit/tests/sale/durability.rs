//! Barrier B1: a purchase is acknowledged only when the replica has it.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use stock::ids::ShardId;
use testkit::stack::SaleOptions;
use testkit::{StackOptions, until};

use crate::fixture::{OpenSale, TIMEOUT, sale_options, users_with_home};

/// The default of a node. The cluster may mark a replica as failed before or after a purchase times out.
const BARRIER_TIMEOUT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn purchase_without_replica_confirmation_has_unknown_outcome() {
    // Given frozen replicas.
    let sale = OpenSale::start(100).await;
    let replicas = sale.freeze_replicas().await;

    // When a buyer buys, then the outcome is unknown, and the answer names the order for a retry.
    let (status, refused) = buy(&sale, "ann", "her-attempt").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    let order = refused["orderId"].as_str().expect("an unknown outcome contains its order id").to_owned();

    // And once the replicas resume, the same attempt is confirmed.
    sale.thaw(&replicas);
    let (status, bought) = buy(&sale, "ann", "her-attempt").await;
    assert_eq!(status, StatusCode::OK, "{bought}");
    assert_eq!(bought["orderId"], order);
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok && audit.sold == 1, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_none_answers_without_replicas() {
    let options = StackOptions {
        sale: sale_options(100),
        node_environment: vec![("DURABILITY".into(), "none".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::start_with(options).await;
    let replicas = sale.freeze_replicas().await;

    let (status, bought) = buy(&sale, "ann", "her-attempt").await;

    assert_eq!(status, StatusCode::OK, "{bought}");
    sale.thaw(&replicas);
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_primary_sells_without_a_dead_replica() {
    // Given nodes that may fall back to the primary's copy, and frozen replicas.
    let options = StackOptions {
        sale: sale_options(100),
        node_environment: vec![("DURABILITY_FALLBACK".into(), "primary".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::start_with(options).await;
    let replicas = sale.freeze_replicas().await;

    // When the cluster marks the replicas as failed, then the primary alone suffices. Until then the outcome is
    // unknown.
    let bought = async || buy(&sale, "ann", "her-attempt").await.0 == StatusCode::OK;
    until("a purchase on the primary alone", TIMEOUT, bought).await.unwrap();

    // And once the replicas are back, their confirmation is required again.
    sale.thaw(&replicas);
    sale.stack.redis().wait_until_whole().await.unwrap();
    sale.wait_until_node_knows_failed_replicas(0).await;
    sale.freeze_replicas().await;
    let started_at = Instant::now();
    let (status, body) = buy(&sale, "bob", "his-attempt").await;
    assert!(
        started_at.elapsed() >= BARRIER_TIMEOUT,
        "the node did not wait for the replica: {status} {body}"
    );
    sale.thaw(&replicas);
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_refuse_waits_for_a_dead_replica() {
    let sale = OpenSale::start(100).await;
    let replicas = sale.freeze_replicas().await;
    sale.wait_until_node_knows_failed_replicas(replicas.len()).await;

    let (status, refused) = buy(&sale, "ann", "her-attempt").await;

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    assert!(refused["orderId"].is_string(), "{refused}");
    sale.thaw(&replicas);
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_waits_for_confirmation_by_replicas() {
    // Given a sale of three units in three shards, whose last purchase no replica has.
    let sale = SaleOptions { shards: Some(3), ..sale_options(3) };
    let sale = OpenSale::start_with(StackOptions { sale, ..StackOptions::default() }).await;
    assert_eq!(sale.sale.split(3), [1, 1, 1], "each shard has one unit");
    let [first, second, third] = [0, 1, 2].map(|shard| users_with_home(&sale.sale, ShardId::new(shard), 2));
    for user in [&first[0], &second[0]] {
        assert_eq!(buy(&sale, user, "first").await.0, StatusCode::OK);
    }
    let replicas = sale.freeze_replicas().await;
    assert_eq!(buy(&sale, &third[0], "first").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let status = sale.stack.status().await.unwrap();
    assert_eq!(status.remaining_stock, 0, "the status shows no stock");

    // When another buyer asks, then the answer is to retry.
    let (status, body) = buy(&sale, &first[1], "second").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");

    // And once the replica has the purchase, the sale is sold out.
    sale.thaw(&replicas);
    let sold_out = async || buy(&sale, &first[1], "second").await.1["reason"] == "out_of_stock";
    until("it is sold out", TIMEOUT, sold_out).await.unwrap();
    assert_eq!(buy(&sale, &third[0], "first").await.0, StatusCode::OK, "the last unit was sold");
}

async fn buy(sale: &OpenSale, user: &str, key: &str) -> (StatusCode, Value) {
    let url = format!("{}/api/sale/purchase", sale.stack.nodes()[0].url());
    let request = Client::new().post(url).header("idempotency-key", key).json(&json!({ "userId": user }));
    let response = request.send().await.unwrap();
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        assert!(response.headers().contains_key("retry-after"), "a 503 has Retry-After");
    }
    (response.status(), response.json().await.unwrap())
}
