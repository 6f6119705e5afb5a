//! Faults of one pair that come one after the other: purchases that buyers were told of outlive all of them.

use std::net::SocketAddr;
use std::time::Duration;

use stock::calls::Find;
use stock::ids::{ShardId, UserId, UserIdKind};
use testkit::{BuyerAnswer, Buyers, StackOptions, until};

use crate::actors::{OpenSale, sale_of};

/// More than are bought meanwhile.
const UNITS: u64 = 100_000;
/// Buyers at a time.
const CONNECTIONS: usize = 64;
/// Detecting a dead primary takes its timeout of a second, the election as long again, and the copy some seconds here.
const LIMIT: Duration = Duration::from_secs(30);
/// A copy writes and loads each of a pair's dozen keys with this delay, so it takes seconds.
const KEY_DELAY_US: u32 = 150_000;

#[tokio::test(flavor = "multi_thread")]
async fn purchases_outlive_a_successor_that_dies_while_it_is_copied() {
    // Given a primary that was killed, and its replica, which leads alone.
    let sale =
        OpenSale::with(StackOptions { nodes: 1, sale: sale_of(UNITS), ..StackOptions::default() }).await;
    let redis = sale.stack.redis();
    let (first, successor) = pair(&sale).await;
    redis.kill(first);
    redis.wait_until_promoted(successor).await.unwrap();

    // When the old primary copies, slowly, and the successor dies as the copy is being loaded, while a crowd buys.
    let node = sale.stack.nodes()[0].url().to_owned();
    let second_fault = async {
        set(&sale, successor, "rdb-key-save-delay", KEY_DELAY_US).await;
        redis.restart(first).await.unwrap();
        set(&sale, first, "key-load-delay", KEY_DELAY_US).await;
        // The copy is sent, and follows once it is loaded: until then the loading server answers nobody.
        let sent = async || info(&sale, successor, "replication").await.contains("state=online");
        until("the copy sent", LIMIT, sent).await.unwrap();
        redis.kill(successor);
        redis.wait_until_promoted(first).await.unwrap();
        set(&sale, first, "key-load-delay", 0).await;
    };
    let ((), answers) = Buyers::new(CONNECTIONS).buy_during(&node, second_fault).await;

    // Then every purchase that somebody was told of is there.
    redis.restart(successor).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    assert_all_found(&sale, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_outlive_a_primary_whose_replica_lost_its_link() {
    // Given a primary that its replica cannot follow, while a server outside the cluster copies it.
    let sale =
        OpenSale::with(StackOptions { nodes: 1, sale: sale_of(UNITS), ..StackOptions::default() }).await;
    let redis = sale.stack.redis();
    let (primary, replica) = pair(&sale).await;
    let outsider = testkit::RedisServer::start().await.unwrap();
    outsider.replicate_as_separate_user(&mut redis.connection(primary).await.unwrap(), primary).await.unwrap();
    let both_follow = async || info(&sale, primary, "replication").await.matches("state=online").count() == 2;
    until("the outsider's copy", LIMIT, both_follow).await.unwrap();
    let node = sale.stack.nodes()[0].url().to_owned();

    // When the link is cut and the primary dies later, while a crowd buys.
    let faults = async {
        redis.cut_replication(primary).await.unwrap();
        let outsider_follows =
            async || info(&sale, primary, "replication").await.matches("state=online").count() == 1;
        until("the outsider alone", LIMIT, outsider_follows).await.unwrap();
        let bought = sale.stack.status().await.unwrap().remaining_stock;
        let more = async || sale.stack.status().await.unwrap().remaining_stock + 90 < bought;
        until("purchases that the replica lacks", LIMIT, more).await.unwrap();
        redis.kill(primary);
        redis.wait_until_promoted(replica).await.unwrap();
    };
    let ((), answers) = Buyers::new(CONNECTIONS).buy_during(&node, faults).await;

    // Then every purchase that somebody was told of is there.
    redis.restart(primary).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    assert_all_found(&sale, &answers).await;
}

/// Looks up everybody who was told of a purchase. The audit cannot: it sees only what Redis still holds.
async fn assert_all_found(sale: &OpenSale, answers: &[BuyerAnswer]) {
    let told: Vec<&BuyerAnswer> = answers.iter().filter(|answer| answer.is_purchased()).collect();
    let mut lost = Vec::new();
    for answer in &told {
        let user = UserId::parse(&answer.user, UserIdKind::Opaque).unwrap();
        let shard = sale.sale.shard(sale.sale.ring().home(&user));
        let found = sale.cluster.read(Find { shard, users: &[user] }).await.unwrap().remove(0);
        if found.map(|claim| claim.order.to_string()) != answer.order_id {
            lost.push(&answer.user);
        }
    }
    println!("{} of {} told purchases are there", told.len() - lost.len(), told.len());
    assert!(told.len() > CONNECTIONS, "too few bought for the story to mean something");
    assert!(lost.is_empty(), "{} of {} told purchases are lost", lost.len(), told.len());
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok, "{:?}", audit.violations);
}

/// The primary of the first shard, and its replica.
async fn pair(sale: &OpenSale) -> (SocketAddr, SocketAddr) {
    let redis = sale.stack.redis();
    let primary = redis.primary_of(sale.sale.shard(ShardId::new(0)).slot).await.unwrap();
    (primary, redis.replicas_of(primary).await[0])
}

async fn set(sale: &OpenSale, server: SocketAddr, setting: &str, value: u32) {
    let mut connection = sale.stack.redis().connection(server).await.unwrap();
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg(setting).arg(value).exec_async(&mut connection).await.unwrap();
}

async fn info(sale: &OpenSale, server: SocketAddr, section: &str) -> String {
    let Ok(mut connection) = sale.stack.redis().connection(server).await else { return String::new() };
    redis::cmd("INFO").arg(section).query_async(&mut connection).await.unwrap_or_default()
}
