//! A node dies in the middle of its steals: no token is lost.

use std::time::Duration;

use stock::ids::ShardId;
use testkit::{Buyers, StackOptions};

use crate::actors::{OpenSale, purchases, sale_of, tally, wishes};

/// How many nodes are killed at most until one left tokens in a channel.
const KILLS_MAX: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_node_killed_in_the_middle_of_steals_are_sold_all_the_same() {
    // Given buyers who all live in one shard, so that a node steals without a pause.
    let options = StackOptions { nodes: 1, sale: sale_of(30_000), ..StackOptions::default() };
    let sale = OpenSale::with(options).await;
    let home = ShardId::new(3);
    let mut users = sale.users_at_home_in(home, 60_000).into_iter();
    let home_primary = home_primary(&sale, home).await;
    let mut answers = Vec::new();

    // When nodes are killed while the shard they bring tokens to does not answer, until one leaves some behind.
    let mut left_in_channels = 0;
    for kill in 0..KILLS_MAX {
        let node = sale.stack.nodes().last().unwrap().clone();
        let crowd: Vec<String> = users.by_ref().take(2_000).collect();
        let wishes = wishes(&crowd, node.url());
        let buying = tokio::spawn(async move { Buyers::new(64).buy(wishes).await });
        tokio::time::sleep(Duration::from_millis(100 + 37 * kill as u64)).await;
        sale.stack.redis().freeze(home_primary);
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.process().kill();
        sale.stack.redis().thaw(home_primary);
        left_in_channels += sale.in_channels().await;
        answers.extend(buying.await.unwrap());
        sale.stack.start_node().await.unwrap();
        if left_in_channels > 0 {
            break;
        }
    }
    println!("{left_in_channels} tokens were left in channels; answers until then: {:?}", tally(&answers));
    assert!(left_in_channels > 0, "no node died in the middle of a steal: the test tests nothing");

    // Then the coordinator brings them home, and everything is sold to somebody.
    testkit::until("the channels are empty", Duration::from_secs(10), async || sale.in_channels().await == 0)
        .await
        .unwrap();
    let rest: Vec<String> = users.take(35_000).collect();
    let url = sale.stack.nodes().last().unwrap().url().to_owned();
    let limit = Duration::from_secs(60);
    answers.extend(Buyers::new(256).buy_persistently(wishes(&rest, &url), limit).await);

    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok, "the audit found {:?}", audit.violations);
    assert_eq!((audit.sold, audit.stock, audit.in_flight), (30_000, 0, 0), "units were left behind");
    // Answers of a killed node may be lost, but nobody was told of a purchase that is not one.
    let told = purchases(&answers).len() as u64;
    assert!(told <= audit.claims, "{told} were told `purchased`, {} have a claim", audit.claims);
}

/// Where the shard lives.
async fn home_primary(sale: &OpenSale, home: ShardId) -> std::net::SocketAddr {
    let topology = sale.cluster.topology();
    let address = topology.primary(sale.sale.shard(home).slot).unwrap().address.to_string();
    address.parse().expect("the cluster is known by numbers")
}
