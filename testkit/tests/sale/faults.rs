//! Faults during steals: no token is lost.

use std::net::SocketAddr;
use std::time::Duration;

use stock::ids::ShardId;
use testkit::stack::SaleOptions;
use testkit::{Buyers, StackOptions, until};

use crate::fixture::{
    OpenSale, assert_all_definite, purchase_attempts, purchases, sale_options, users_with_home,
};

const UNITS: u64 = 240;
/// Time until the cluster marks a server as failed: `cluster-node-timeout` of 1 s, then agreement of a majority.
const FAILURE_DETECTED_MAX: Duration = Duration::from_secs(15);
/// Within this time a node has read the cluster's map again.
const MAP_PERIOD: Duration = Duration::from_millis(1_500);
/// Time limit for a buyer's retries.
const RETRY_LIMIT: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_sold_after_node_dies_mid_steal() {
    // Given a sale whose buyers all have one home shard, which is empty. Each shard has a primary of its own, so
    // donors have other replicas than the shard that accepts.
    let sale = SaleOptions { shards: Some(3), ..sale_options(UNITS) };
    let sale = OpenSale::start_with_one_node(sale).await;
    let home = ShardId::new(1);
    let users = users_with_home(&sale.sale, home, 2_000);
    let (first, rest) = users.split_at(sale.sale.split(UNITS)[home.index()] as usize);
    let node = sale.stack.nodes()[0].clone();
    let mut answers = Buyers::new(16).buy(purchase_attempts(first, node.url())).await;
    assert_eq!(purchases(&answers).len(), first.len());

    // When a node steals for the next buyers, and dies while it waits for the donor's replica.
    let replicas = replicas_of_donors(&sale, home).await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    let crowd = purchase_attempts(&rest[..64], node.url());
    let buying = tokio::spawn(async move { Buyers::new(64).buy(crowd).await });
    let donated = async || sale.tokens_in_channels().await > 0;
    until("tokens are in a channel", Duration::from_secs(5), donated).await.unwrap();
    node.process().kill();
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    let stranded_tokens = sale.tokens_in_channels().await;
    println!("{stranded_tokens} tokens are left in a channel");
    assert!(stranded_tokens > 0, "the node did not die during a steal, so the test is void");
    assert!(purchases(&buying.await.unwrap()).is_empty(), "a purchase was acknowledged too early");

    // Then a coordinator moves the tokens on.
    let accepted = async || sale.tokens_in_channels().await == 0;
    until("the channels are empty", Duration::from_secs(10), accepted).await.unwrap();

    // And everything is sold through another node.
    let node = sale.stack.start_node().await.unwrap();
    answers.extend(Buyers::new(128).buy(purchase_attempts(rest, node.url())).await);
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_keep_tokens_while_replicas_are_failed() {
    // Given an empty shard, and donors whose replicas are marked as failed.
    let sale = SaleOptions { shards: Some(3), ..sale_options(UNITS) };
    let options = StackOptions {
        nodes: 1,
        sale,
        coordinator_environment: vec![("REBALANCE_PERIOD".into(), "0s".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::start_with(options).await;
    let home = ShardId::new(1);
    let users = users_with_home(&sale.sale, home, 2_000);
    let (first, rest) = users.split_at(sale.sale.split(UNITS)[home.index()] as usize);
    let node = sale.stack.nodes()[0].url().to_owned();
    let mut answers = Buyers::new(16).buy(purchase_attempts(first, &node)).await;
    assert_eq!(purchases(&answers).len(), first.len());
    let replicas = replicas_of_donors(&sale, home).await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    let failed = async || sale.stack.redis().failed().await.len() == replicas.len();
    until("the cluster marks the replicas as failed", FAILURE_DETECTED_MAX, failed).await.unwrap();
    tokio::time::sleep(MAP_PERIOD).await;

    // When buyers of the empty shard ask for more, then no token leaves the donors: it would be stuck in a channel.
    let refused = Buyers::new(16).buy(purchase_attempts(&rest[..16], &node)).await;
    assert_eq!(sale.tokens_in_channels().await, 0, "tokens left shards without replica confirmation");
    assert!(refused.iter().all(|answer| answer.status == Some(503)), "{refused:?}");

    // And once the replicas are back, everything is sold.
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    sale.stack.redis().wait_until_whole().await.unwrap();
    answers.extend(Buyers::new(64).buy_persistently(purchase_attempts(rest, &node), RETRY_LIMIT).await);
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

/// The replicas of all primaries except that of this shard.
async fn replicas_of_donors(sale: &OpenSale, home: ShardId) -> Vec<SocketAddr> {
    let own = sale.stack.redis().replicas_of(sale.primary_of(sale.sale.shard(home).slot)).await;
    sale.stack.redis().replicas().await.into_iter().filter(|replica| !own.contains(replica)).collect()
}
