//! Servers with wrong clocks: each decides for its own shards only and does not affect the others.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rediscluster::{Slot, slot_of_tag};
use stock::ids::ShardId;
use stock::layout::SALES_KEY;
use testkit::stack::SaleOptions;
use testkit::{BuyerAnswer, Buyers, Failover, StackOptions, until};

use crate::fixture::{
    OpenSale, assert_all_definite, purchase_attempts, purchases, sale_options, tally, users_with_home,
};

/// Time limit for any expected change, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Offset of the wrong clock. It is longer than any wait in the test, so waiting cannot hide the fault.
const CLOCK_OFFSET: SignedDuration = SignedDuration::from_mins(3);

/// Pause between groups of buyers. Within a few pauses every node reads each primary's clock again.
const BUYER_PAUSE: Duration = Duration::from_millis(100);

async fn start_with_clocks(sale: SaleOptions) -> OpenSale {
    OpenSale::start_with(StackOptions { clocks: true, sale, ..StackOptions::default() }).await
}

fn primary_of(sale: &OpenSale, slot: Slot) -> SocketAddr {
    let topology = sale.cluster.topology();
    let primary = topology.primary(slot).expect("every slot is served");
    primary.address.to_string().parse().expect("the cluster's addresses are IP addresses")
}

/// Users whose home shards are on other primaries than this one, the same number for each shard.
fn users_elsewhere(sale: &OpenSale, excluded: SocketAddr, per_shard: usize) -> Vec<String> {
    let shards = sale.sale.shards().iter().zip((0..).map(ShardId::new));
    let elsewhere = shards.filter(|(shard, _)| primary_of(sale, shard.slot) != excluded);
    elsewhere.flat_map(|(_, id)| users_with_home(&sale.sale, id, per_shard)).collect()
}

async fn buy(sale: &OpenSale, users: &[String]) -> Vec<BuyerAnswer> {
    Buyers::new(16).buy_persistently(purchase_attempts(users, &sale.stack.url()), TIMEOUT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_clock_does_not_close_other_shards() {
    // Given a sale of half an hour, and a replica whose clock is an hour ahead. Its primary holds the list of sales.
    let half_an_hour = Duration::from_mins(30);
    let sale = start_with_clocks(SaleOptions { duration: half_an_hour, ..sale_options(600) }).await;
    let redis = sale.stack.redis();
    let list_primary = primary_of(&sale, slot_of_tag(SALES_KEY));
    let replica = redis.replicas_of(list_primary).await[0];
    let users = users_elsewhere(&sale, list_primary, 12);
    redis.set_clock(replica, SignedDuration::from_hours(1)).unwrap();

    // When the replica takes over, and the nodes have seen its clock.
    redis.fail_over_to(replica, Failover::Agreed).await.unwrap();
    until("a node knows the new primary", TIMEOUT, async || {
        refuses_buyers_of_its_shards(&sale, replica).await
    })
    .await
    .unwrap();

    // Then buyers with shards on the other primaries are served, and the status shows the time of those primaries.
    for group in users.chunks(6) {
        let answers = buy(&sale, group).await;
        assert_eq!(purchases(&answers).len(), group.len(), "the answers are {:?}", tally(&answers));
        let status = sale.stack.status().await.unwrap();
        assert_eq!(status.status, "active");
        let shown: Timestamp = status.server_time.parse().unwrap();
        assert!(shown.duration_since(Timestamp::now()).abs() < SignedDuration::from_secs(5), "{shown}");
        tokio::time::sleep(BUYER_PAUSE).await;
    }
}

/// Returns true when this primary refuses a buyer of one of its shards.
async fn refuses_buyers_of_its_shards(sale: &OpenSale, primary: SocketAddr) -> bool {
    sale.cluster.refresh().await.unwrap();
    let mut shards = sale.sale.shards().iter().zip((0..).map(ShardId::new));
    let Some((_, own)) = shards.find(|(shard, _)| primary_of(sale, shard.slot) == primary) else {
        return false;
    };
    let user = users_with_home(&sale.sale, own, 500).pop().into_iter().collect::<Vec<_>>();
    let answer = Buyers::new(1).buy(purchase_attempts(&user, &sale.stack.url())).await;
    answer[0].status == Some(403)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_advances_after_fast_primary_is_replaced() {
    // Given a primary whose clock is ahead, and a status that has seen its time.
    let sale = start_with_clocks(sale_options(240)).await;
    let redis = sale.stack.redis();
    let ahead = primary_of(&sale, sale.sale.shard(ShardId::new(0)).slot);
    let replica = redis.replicas_of(ahead).await[0];
    redis.set_clock(ahead, CLOCK_OFFSET).unwrap();
    let users: Vec<String> = (0..300).map(|n| format!("buyer-{n:03}")).collect();
    let mut answers = buy(&sale, &users[..60]).await;
    let shown = async || sale.stack.status().await.is_ok_and(|status| status.sold() == 60);
    until("the status shows the first purchases", TIMEOUT, shown).await.unwrap();

    // When its replica, whose clock is right, takes over, and buyers buy the remaining units.
    redis.fail_over_to(replica, Failover::Agreed).await.unwrap();
    answers.extend(buy(&sale, &users[60..]).await);

    // Then the status follows, and later buyers get a definite answer.
    assert_all_definite(&answers);
    let shown = async || sale.stack.status().await.is_ok_and(|status| status.remaining_stock == 0);
    until("the status shows that all is sold", TIMEOUT, shown).await.unwrap();
    sale.assert_sold_out(&answers).await;
}
