//! Servers with wrong clocks: each decides for its own shards only and does not affect the others.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rediscluster::slot_of_tag;
use stock::ids::ShardId;
use stock::layout::SALES_KEY;
use testkit::stack::SaleOptions;
use testkit::{Buyers, Failover, StackOptions, until};

use crate::fixture::{
    OpenSale, TIMEOUT, assert_all_definite, assert_purchases, buyers, purchase_attempts, sale_options,
    users_with_home,
};

/// Offset of the wrong clock. It is longer than any wait in the test, so waiting cannot hide the fault.
const CLOCK_OFFSET: SignedDuration = SignedDuration::from_mins(3);

/// Pause between groups of buyers. Within a few pauses every node reads each primary's clock again.
const BUYER_PAUSE: Duration = Duration::from_millis(100);

async fn start_with_clocks(sale: SaleOptions) -> OpenSale {
    OpenSale::start_with(StackOptions { clocks: true, sale, ..StackOptions::default() }).await
}

/// Users whose home shards are on other primaries than this one, the same number for each shard.
fn users_elsewhere(sale: &OpenSale, excluded: SocketAddr, per_shard: usize) -> Vec<String> {
    let elsewhere = sale.sale.shards().iter().filter(|shard| sale.primary_of(shard.slot) != excluded);
    elsewhere.flat_map(|shard| users_with_home(&sale.sale, shard.id, per_shard)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_clock_does_not_close_other_shards() {
    // Given a sale of half an hour, and a replica whose clock is an hour ahead. Its primary holds the list of sales.
    let half_an_hour = Duration::from_mins(30);
    let sale = start_with_clocks(SaleOptions { duration: half_an_hour, ..sale_options(600) }).await;
    let redis = sale.stack.redis();
    let list_primary = sale.primary_of(slot_of_tag(SALES_KEY));
    let replica = redis.replicas_of(list_primary).await[0];
    let users = users_elsewhere(&sale, list_primary, 12);
    redis.set_clock(replica, SignedDuration::from_hours(1)).unwrap();

    // When the replica takes over, and the nodes have seen its clock.
    redis.fail_over_to(replica, Failover::Agreed).await.unwrap();
    let refuses = async || refuses_buyers_of_its_shards(&sale, replica).await;
    until("a node knows the new primary", TIMEOUT, refuses).await.unwrap();

    // Then buyers with shards on the other primaries are served, and the status shows the time of those primaries.
    for group in users.chunks(6) {
        assert_purchases(&sale.buy(group).await, group.len());
        let status = sale.stack.status().await.unwrap();
        assert_eq!(status.status, "active");
        let shown: Timestamp = status.server_time;
        assert!(shown.duration_since(Timestamp::now()).abs() < SignedDuration::from_secs(5), "{shown}");
        tokio::time::sleep(BUYER_PAUSE).await;
    }
}

/// Returns true when this primary refuses a buyer of one of its shards.
async fn refuses_buyers_of_its_shards(sale: &OpenSale, primary: SocketAddr) -> bool {
    sale.cluster.refresh().await.unwrap();
    let own = sale.sale.shards().iter().find(|shard| sale.primary_of(shard.slot) == primary);
    let Some(own) = own else { return false };
    let user = users_with_home(&sale.sale, own.id, 500).split_off(499);
    let answer = Buyers::new(1).buy(purchase_attempts(&user, &sale.stack.url())).await;
    answer[0].status == Some(403)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_advances_after_fast_primary_is_replaced() {
    // Given a primary whose clock is ahead, and a status that has seen its time.
    let sale = start_with_clocks(sale_options(240)).await;
    let redis = sale.stack.redis();
    let (ahead, replica) = sale.primary_and_replica(ShardId::new(0)).await;
    redis.set_clock(ahead, CLOCK_OFFSET).unwrap();
    let mut answers = sale.buy(&buyers(0..60)).await;
    sale.wait_for_stock(180).await;

    // When its replica, whose clock is right, takes over, and buyers buy the remaining units.
    redis.fail_over_to(replica, Failover::Agreed).await.unwrap();
    answers.extend(sale.buy(&buyers(60..300)).await);

    // Then the status follows, and later buyers get a definite answer.
    assert_all_definite(&answers);
    sale.wait_for_stock(0).await;
    sale.assert_sold_out(&answers).await;
}
