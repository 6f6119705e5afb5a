//! Faults during steals: no token is lost.

use std::net::SocketAddr;
use std::time::Duration;

use stock::ids::ShardId;
use testkit::stack::SaleOptions;
use testkit::{BuyerAnswer, Buyers, StackOptions, until};

use crate::fixture::{
    OpenSale, assert_all_definite, buy_at, purchase_attempts, purchases, sale_options, users_with_home,
};

const UNITS: u64 = 240;
/// The home shard of all buyers.
const HOME: ShardId = ShardId::new(1);

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_sold_after_node_dies_mid_steal() {
    // Given a sale whose buyers all have one home shard, which is empty.
    let (sale, mut answers, users) = start_with_empty_shard(StackOptions::default()).await;
    let node = sale.stack.nodes()[0].clone();

    // When a node steals for the next buyers, and dies while it waits for the donor's replica.
    let replicas = freeze_replicas_of_donors(&sale).await;
    let crowd = purchase_attempts(&users[..64], node.url());
    let buying = tokio::spawn(async move { Buyers::new(64).buy(crowd).await });
    until("tokens are in a channel", Duration::from_secs(5), async || sale.tokens_in_channels().await > 0)
        .await
        .unwrap();
    node.process().kill();
    sale.thaw(&replicas);
    let stranded_tokens = sale.tokens_in_channels().await;
    println!("{stranded_tokens} tokens are left in a channel");
    assert!(stranded_tokens > 0, "the node did not die during a steal, so the test is void");
    assert!(purchases(&buying.await.unwrap()).is_empty(), "a purchase was acknowledged too early");

    // Then a coordinator moves the tokens on.
    until("the channels are empty", Duration::from_secs(10), async || sale.tokens_in_channels().await == 0)
        .await
        .unwrap();

    // And everything is sold through another node.
    let node = sale.stack.start_node().await.unwrap();
    answers.extend(Buyers::new(128).buy(purchase_attempts(&users, node.url())).await);
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_keep_tokens_while_replicas_are_failed() {
    // Given an empty shard, and donors whose replicas are marked as failed.
    let coordinator_environment = vec![("REBALANCE_PERIOD".into(), "0s".into())];
    let options = StackOptions { coordinator_environment, ..StackOptions::default() };
    let (sale, mut answers, users) = start_with_empty_shard(options).await;
    let node = sale.stack.nodes()[0].url().to_owned();
    let replicas = freeze_replicas_of_donors(&sale).await;
    sale.wait_until_node_knows_failed_replicas(replicas.len()).await;

    // When buyers of the empty shard ask for more, then no token leaves the donors: it would be stuck in a channel.
    let refused = Buyers::new(16).buy(purchase_attempts(&users[..16], &node)).await;
    assert_eq!(sale.tokens_in_channels().await, 0, "tokens left shards without replica confirmation");
    assert!(refused.iter().all(|answer| answer.status == Some(503)), "{refused:?}");

    // And once the replicas are back, everything is sold.
    sale.thaw(&replicas);
    sale.stack.redis().wait_until_whole().await.unwrap();
    answers.extend(buy_at(&node, &users).await);
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

/// Starts a sale and sells all units of one shard. Returns the answers, and further users of that shard. Each shard has a
/// primary of its own, so donors have other replicas than the shard that accepts.
async fn start_with_empty_shard(options: StackOptions) -> (OpenSale, Vec<BuyerAnswer>, Vec<String>) {
    let sale = SaleOptions { shards: Some(3), ..sale_options(UNITS) };
    let sale = OpenSale::start_with(StackOptions { nodes: 1, sale, ..options }).await;
    let mut users = users_with_home(&sale.sale, HOME, 2_000);
    let later = users.split_off(sale.sale.split(UNITS)[HOME.index()] as usize);
    let answers = Buyers::new(16).buy(purchase_attempts(&users, sale.stack.nodes()[0].url())).await;
    assert_eq!(purchases(&answers).len(), users.len());
    (sale, answers, later)
}

/// Freezes the replicas of all primaries except that of the empty shard.
async fn freeze_replicas_of_donors(sale: &OpenSale) -> Vec<SocketAddr> {
    let redis = sale.stack.redis();
    let own = redis.replicas_of(sale.primary_of(sale.sale.shard(HOME).slot)).await;
    let mut replicas = redis.replicas().await;
    replicas.retain(|replica| !own.contains(replica));
    replicas.iter().for_each(|&replica| redis.freeze(replica));
    replicas
}
