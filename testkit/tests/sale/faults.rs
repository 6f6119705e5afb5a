//! A node dies in the middle of its steals: no token is lost.

use std::net::SocketAddr;
use std::time::Duration;

use stock::ids::ShardId;
use testkit::stack::SaleOptions;
use testkit::{Buyers, StackOptions, until};

use crate::actors::{OpenSale, assert_all_definite, purchases, sale_of, users_at_home_in, wishes};

const UNITS: u64 = 240;
/// The cluster gives a server up after its timeout of 1 s, and once most of the others agree.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// A node has read the cluster's map by then, once more.
const MAP_PERIOD: Duration = Duration::from_millis(1_500);
/// How long somebody keeps trying.
const PERSISTENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_node_killed_in_the_middle_of_a_steal_are_sold_all_the_same() {
    // Given a sale whose buyers all live in one shard, and that shard has sold what it had. Each shard has a
    // primary of its own: whoever gives tokens has another replica than the shard that takes them.
    let shop = SaleOptions { shards: Some(3), ..sale_of(UNITS) };
    let options = StackOptions { nodes: 1, sale: shop, ..StackOptions::default() };
    let sale = OpenSale::with(options).await;
    let home = ShardId::new(1);
    let users = users_at_home_in(&sale.sale, home, 2_000);
    let (first, rest) = users.split_at(sale.sale.split(UNITS)[home.index()] as usize);
    let doomed = sale.stack.nodes()[0].clone();
    let mut answers = Buyers::new(16).buy(wishes(first, doomed.url())).await;
    assert_eq!(purchases(&answers).len(), first.len());

    // When a node steals for the next ones, and dies while it waits for the giver's replica.
    let replicas = replicas_of_givers(&sale, home).await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    let crowd = wishes(&rest[..64], doomed.url());
    let buying = tokio::spawn(async move { Buyers::new(64).buy(crowd).await });
    until("a shard has given tokens", Duration::from_secs(5), async || sale.in_channels().await > 0)
        .await
        .unwrap();
    doomed.process().kill();
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    let left_behind = sale.in_channels().await;
    println!("{left_behind} tokens were left in a channel");
    assert!(left_behind > 0, "the node did not die in the middle of a steal: the test tests nothing");
    assert!(purchases(&buying.await.unwrap()).is_empty(), "somebody was told of a purchase too early");

    // Then the coordinator brings the tokens home.
    until("the channels are empty", Duration::from_secs(10), async || sale.in_channels().await == 0)
        .await
        .unwrap();

    // And everything is sold, through another node.
    let node = sale.stack.start_node().await.unwrap();
    answers.extend(Buyers::new(128).buy(wishes(rest, node.url())).await);
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_keep_their_tokens_while_their_replicas_are_away() {
    // Given a shard that has sold what it had, and givers whose replicas the cluster calls failed.
    let shop = SaleOptions { shards: Some(3), ..sale_of(UNITS) };
    let options = StackOptions {
        nodes: 1,
        sale: shop,
        coordinator_environment: vec![("REBALANCE_PERIOD".into(), "0s".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::with(options).await;
    let home = ShardId::new(1);
    let users = users_at_home_in(&sale.sale, home, 2_000);
    let (first, rest) = users.split_at(sale.sale.split(UNITS)[home.index()] as usize);
    let node = sale.stack.nodes()[0].url().to_owned();
    let mut answers = Buyers::new(16).buy(wishes(first, &node)).await;
    assert_eq!(purchases(&answers).len(), first.len());
    let replicas = replicas_of_givers(&sale, home).await;
    replicas.iter().for_each(|&replica| sale.stack.redis().freeze(replica));
    let failed = async || sale.stack.redis().failed().await.len() == replicas.len();
    until("the cluster gives the replicas up", GIVEN_UP, failed).await.unwrap();
    tokio::time::sleep(MAP_PERIOD).await;

    // When buyers of the empty shard ask for more, then no token leaves the others: each would be stuck in a channel.
    let refused = Buyers::new(16).buy(wishes(&rest[..16], &node)).await;
    assert_eq!(sale.in_channels().await, 0, "tokens left shards whose replicas cannot confirm it");
    assert!(refused.iter().all(|answer| answer.status == Some(503)), "{refused:?}");

    // And once the replicas are back, everything is sold.
    replicas.iter().for_each(|&replica| sale.stack.redis().thaw(replica));
    sale.stack.redis().wait_until_whole().await.unwrap();
    answers.extend(Buyers::new(64).buy_persistently(wishes(rest, &node), PERSISTENCE).await);
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

/// The replicas of all primaries but the one that this shard lives on.
async fn replicas_of_givers(sale: &OpenSale, home: ShardId) -> Vec<SocketAddr> {
    let topology = sale.cluster.topology();
    let primary = topology.primary(sale.sale.shard(home).slot).expect("every slot is served");
    let primary = primary.address.to_string().parse().expect("the cluster is known by numbers");
    let own = sale.stack.redis().replicas_of(primary).await;
    sale.stack.redis().replicas().await.into_iter().filter(|replica| !own.contains(replica)).collect()
}
