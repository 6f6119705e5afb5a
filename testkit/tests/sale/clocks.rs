//! Servers whose clocks are wrong: each decides for its own shards, and misleads nobody about the others'.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stock::ids::ShardId;
use stock::layout::{SALES_KEY, Slot, slot_of_tag};
use testkit::stack::SaleOptions;
use testkit::{BuyerAnswer, Buyers, Failover, StackOptions, until};

use crate::actors::{OpenSale, assert_all_definite, purchases, sale_of, tally, users_at_home_in, wishes};

/// What has to happen happens by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);
/// A wrong clock that is right again after this long would be no fault to a test that waited for it.
const WRONG_FOR: SignedDuration = SignedDuration::from_mins(3);

/// Some of these, and every node has read each primary's clock again.
const BETWEEN_BUYERS: Duration = Duration::from_millis(100);

async fn with_clocks(sale: SaleOptions) -> OpenSale {
    OpenSale::with(StackOptions { clocks: true, sale, ..StackOptions::default() }).await
}

fn primary_of(sale: &OpenSale, slot: Slot) -> SocketAddr {
    let topology = sale.cluster.topology();
    let primary = topology.primary(slot).expect("every slot is served");
    primary.address.to_string().parse().expect("the cluster is known by numbers")
}

/// Users of the shards on all primaries but this one, the same number of each.
fn users_elsewhere(sale: &OpenSale, than: SocketAddr, per_shard: usize) -> Vec<String> {
    let shards = sale.sale.shards().iter().zip((0..).map(ShardId::new));
    let elsewhere = shards.filter(|(shard, _)| primary_of(sale, shard.slot) != than);
    elsewhere.flat_map(|(_, id)| users_at_home_in(&sale.sale, id, per_shard)).collect()
}

async fn buys(sale: &OpenSale, users: &[String]) -> Vec<BuyerAnswer> {
    Buyers::new(16).buy_persistently(wishes(users, &sale.stack.url()), SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_ahead_at_the_lists_primary_closes_no_other_shard() {
    // Given a sale of half an hour, and a replica whose clock is an hour ahead: that of the primary with the list of sales.
    let half_an_hour = Duration::from_mins(30);
    let sale = with_clocks(SaleOptions { duration: half_an_hour, ..sale_of(600) }).await;
    let redis = sale.stack.redis();
    let of_list = primary_of(&sale, slot_of_tag(SALES_KEY));
    let replica = redis.replicas_of(of_list).await[0];
    let users = users_elsewhere(&sale, of_list, 12);
    redis.set_clock(replica, SignedDuration::from_hours(1)).unwrap();

    // When it takes over, and the nodes have seen its clock.
    redis.fail_over_to(replica, Failover::Agreed).await.unwrap();
    until("a node knows the new primary", SOON, async || of_its_own_shards_says_ended(&sale, replica).await)
        .await
        .unwrap();

    // Then those whose shards lie on the other primaries are served from then on, and the sale is shown as it is there.
    for some in users.chunks(6) {
        let answers = buys(&sale, some).await;
        assert_eq!(purchases(&answers).len(), some.len(), "buyers were told {:?}", tally(&answers));
        let status = sale.stack.status().await.unwrap();
        assert_eq!(status.status, "active");
        let shown: Timestamp = status.server_time.parse().unwrap();
        assert!(shown.duration_since(Timestamp::now()).abs() < SignedDuration::from_secs(5), "{shown}");
        tokio::time::sleep(BETWEEN_BUYERS).await;
    }
}

/// Whether a buyer whose shard lies on this primary is refused by it.
async fn of_its_own_shards_says_ended(sale: &OpenSale, primary: SocketAddr) -> bool {
    sale.cluster.refresh().await.unwrap();
    let mut shards = sale.sale.shards().iter().zip((0..).map(ShardId::new));
    let Some((_, own)) = shards.find(|(shard, _)| primary_of(sale, shard.slot) == primary) else {
        return false;
    };
    let user = users_at_home_in(&sale.sale, own, 500).pop().into_iter().collect::<Vec<_>>();
    let answer = Buyers::new(1).buy(wishes(&user, &sale.stack.url())).await;
    answer[0].status == Some(403)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_moves_on_after_a_primary_with_a_fast_clock_handed_over() {
    // Given a primary whose clock is ahead, and a status that has seen its time.
    let sale = with_clocks(sale_of(240)).await;
    let redis = sale.stack.redis();
    let ahead = primary_of(&sale, sale.sale.shard(ShardId::new(0)).slot);
    let replica = redis.replicas_of(ahead).await[0];
    redis.set_clock(ahead, WRONG_FOR).unwrap();
    let users: Vec<String> = (0..300).map(|n| format!("buyer-{n:03}")).collect();
    let mut answers = buys(&sale, &users[..60]).await;
    let shown = async || sale.stack.status().await.is_ok_and(|status| status.sold() == 60);
    until("the status shows the first purchases", SOON, shown).await.unwrap();

    // When its replica takes over, whose clock is right, and the crowd buys the rest.
    redis.fail_over_to(replica, Failover::Agreed).await.unwrap();
    answers.extend(buys(&sale, &users[60..]).await);

    // Then the status follows, and those who came too late are told so.
    assert_all_definite(&answers);
    let shown = async || sale.stack.status().await.is_ok_and(|status| status.remaining_stock == 0);
    until("the status shows that all is sold", SOON, shown).await.unwrap();
    sale.assert_sold_out(&answers).await;
}
