//! B1: nobody is told `purchased` before the replica has it.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testkit::StackOptions;

use crate::actors::{OpenSale, sale_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_no_replica_confirmed_is_not_called_purchased() {
    // Given replicas that do not answer.
    let sale = OpenSale::of(100).await;
    let replicas = sale.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));

    // When somebody buys, then the answer is "unknown, try again", with the order to come back with.
    let (status, refused) = buy(&sale, "ann", "her-attempt").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    let order = refused["orderId"].as_str().expect("an unknown outcome names its order").to_owned();

    // And once the replicas are back, the same attempt is confirmed.
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    let (status, bought) = buy(&sale, "ann", "her-attempt").await;
    assert_eq!(status, StatusCode::OK, "{bought}");
    assert_eq!(bought["orderId"], order);
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok && audit.sold == 1, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_no_durability_gets_an_answer_without_replicas() {
    let options = StackOptions {
        sale: sale_of(100),
        node_environment: vec![("DURABILITY".into(), "none".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::with(options).await;
    let replicas = sale.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));

    let (status, bought) = buy(&sale, "ann", "her-attempt").await;

    assert_eq!(status, StatusCode::OK, "{bought}");
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
}

async fn buy(sale: &OpenSale, user: &str, key: &str) -> (StatusCode, Value) {
    let url = format!("{}/api/sale/purchase", sale.stack.nodes()[0].url());
    let request = Client::new().post(url).header("idempotency-key", key).json(&json!({ "userId": user }));
    let response = request.send().await.unwrap();
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        assert!(response.headers().contains_key("retry-after"), "a 503 says when to come back");
    }
    (response.status(), response.json().await.unwrap())
}
