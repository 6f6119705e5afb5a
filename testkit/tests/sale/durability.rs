//! B1: nobody is told `purchased` before the replica has it.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use stock::ids::ShardId;
use testkit::stack::SaleOptions;
use testkit::{StackOptions, until};

use crate::actors::{OpenSale, sale_of, users_at_home_in};

/// The cluster gives a server up after its timeout of 1 s, and once most of the others agree.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// A node's default. Whether the cluster gives a replica up before a purchase does is a matter of chance.
const BARRIER_TIMEOUT: Duration = Duration::from_millis(500);
/// A node has read the cluster's map by then, once more.
const MAP_PERIOD: Duration = Duration::from_millis(1_500);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_whose_replica_is_dead_may_sell_alone_where_the_operator_says_so() {
    // Given nodes that may fall back to the primary's copy, and replicas that die.
    let options = StackOptions {
        sale: sale_of(100),
        node_environment: vec![("DURABILITY_FALLBACK".into(), "primary".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::with(options).await;
    let replicas = sale.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));

    // While the cluster has not given them up, the outcome is unknown; then the primary's word is enough.
    let bought = async || buy(&sale, "ann", "her-attempt").await.0 == StatusCode::OK;
    until("a purchase on the primary alone", GIVEN_UP, bought).await.unwrap();

    // And once they are back, they are waited for again.
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    sale.stack.redis().wait_until_whole().await.unwrap();
    tokio::time::sleep(MAP_PERIOD).await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    let asked = Instant::now();
    let (status, told) = buy(&sale, "bob", "his-attempt").await;
    assert!(asked.elapsed() >= BARRIER_TIMEOUT, "nobody was waited for: {status} {told}");
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_that_word_a_dead_replica_is_waited_for_however_long_it_is_dead() {
    let sale = OpenSale::of(100).await;
    let replicas = sale.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    let given_up = async || sale.stack.redis().failed().await.len() == replicas.len();
    until("the cluster gives the replicas up", GIVEN_UP, given_up).await.unwrap();
    tokio::time::sleep(MAP_PERIOD).await;

    let (status, refused) = buy(&sale, "ann", "her-attempt").await;

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    assert!(refused["orderId"].is_string(), "{refused}");
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_away_for_good_because_of_a_sale_that_may_yet_be_forgotten() {
    // Given a sale of three units in three shards, of which the last one was sold and no replica knows of it.
    let shop = SaleOptions { shards: Some(3), ..sale_of(3) };
    let sale = OpenSale::with(StackOptions { sale: shop, ..StackOptions::default() }).await;
    assert_eq!(sale.sale.split(3), [1, 1, 1], "each shard has one unit");
    let [first, second, third] = [0, 1, 2].map(|shard| users_at_home_in(&sale.sale, ShardId::new(shard), 2));
    for user in [&first[0], &second[0]] {
        assert_eq!(buy(&sale, user, "first").await.0, StatusCode::OK);
    }
    let replicas = sale.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    assert_eq!(buy(&sale, &third[0], "first").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let status = sale.stack.status().await.unwrap();
    assert_eq!(status.remaining_stock, 0, "it looks sold out");

    // When others ask for one, then they are told to come back.
    let (status, told) = buy(&sale, &first[1], "second").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told}");

    // And once the replica knows, that there are none left.
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    let told = async || buy(&sale, &first[1], "second").await.1["reason"] == "out_of_stock";
    until("it is sold out", GIVEN_UP, told).await.unwrap();
    assert_eq!(buy(&sale, &third[0], "first").await.0, StatusCode::OK, "the last one was sold all the same");
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
