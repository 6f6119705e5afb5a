//! Two faults of the same primary and replica, one after the other: acknowledged purchases survive both.

use std::net::SocketAddr;
use std::time::Duration;

use stock::calls::Find;
use stock::ids::{ShardId, UserId, UserIdKind};
use testkit::{BuyerAnswer, Buyers, StackOptions, until};

use crate::fixture::{OpenSale, TIMEOUT, purchase_attempts, sale_options, tally, users_with_home};

/// More units than are bought during a test.
const UNITS: u64 = 100_000;
/// Number of concurrent buyers.
const CONNECTIONS: usize = 64;
/// Time in which buyers repeat an attempt. A node needs a fraction of a second to find a promoted primary.
const BUYING_TIME: Duration = Duration::from_secs(5);
/// Delay per key while a copy is written and loaded. A server has a dozen keys, so a copy takes seconds.
const KEY_DELAY_US: u32 = 150_000;

#[tokio::test(flavor = "multi_thread")]
async fn purchases_survive_when_successor_dies_during_resync() {
    // Given a killed primary, and its promoted replica without a replica of its own.
    let sale = OpenSale::start_with_one_node(sale_options(UNITS)).await;
    let redis = sale.stack.redis();
    let (first, successor) = sale.primary_and_replica(ShardId::new(0)).await;
    redis.kill(first);
    redis.wait_until_promoted(successor).await.unwrap();

    // When the old primary copies slowly, and the successor dies while the copy is loaded and buyers buy.
    let second_fault = async {
        set(&sale, successor, "rdb-key-save-delay", KEY_DELAY_US).await;
        redis.restart(first).await.unwrap();
        set(&sale, first, "key-load-delay", KEY_DELAY_US).await;
        // `state=online` means that the copy was sent. The receiver then loads it and answers no request meanwhile.
        let sent = async || replication(&sale, successor).await.contains("state=online");
        until("the copy is sent", TIMEOUT, sent).await.unwrap();
        redis.kill(successor);
        redis.wait_until_promoted(first).await.unwrap();
        set(&sale, first, "key-load-delay", 0).await;
    };
    let ((), answers) = Buyers::new(CONNECTIONS).buy_during(&sale.node_url(), second_fault).await;

    // Then every acknowledged purchase exists.
    redis.restart(successor).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    assert_all_found(&sale, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_survive_when_primary_dies_without_replica_link() {
    // Given a primary with a replica in the cluster and another replica outside of it.
    let sale = OpenSale::start_with_one_node(sale_options(UNITS)).await;
    let redis = sale.stack.redis();
    let (primary, replica) = sale.primary_and_replica(ShardId::new(0)).await;
    let external_replica = testkit::RedisServer::start().await.unwrap();
    let mut connection = redis.connection(primary).await.unwrap();
    external_replica.replicate_as_separate_user(&mut connection, primary).await.unwrap();
    let followers = async || replication(&sale, primary).await.matches("state=online").count();
    until("both replicas follow", TIMEOUT, async || followers().await == 2).await.unwrap();

    // When the replica loses its link, and the primary dies later, while buyers buy.
    let faults = async {
        redis.cut_replication(primary).await.unwrap();
        until("only the external replica follows", TIMEOUT, async || followers().await == 1).await.unwrap();
        let bought = sale.stack.status().await.unwrap().remaining_stock;
        let more = async || sale.stack.status().await.unwrap().remaining_stock + 90 < bought;
        until("purchases that the replica lacks", TIMEOUT, more).await.unwrap();
        redis.kill(primary);
        redis.wait_until_promoted(replica).await.unwrap();
    };
    let ((), answers) = Buyers::new(CONNECTIONS).buy_during(&sale.node_url(), faults).await;

    // Then every acknowledged purchase exists.
    redis.restart(primary).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    assert_all_found(&sale, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_survive_when_sleeping_replica_takes_over() {
    // Given a primary with two replicas, and buyers of its shards.
    let sale = start_with_two_replicas().await;
    let redis = sale.stack.redis();
    let (primary, successor, sleeper) = primary_and_two_replicas(&sale).await;
    let buyers =
        purchase_attempts(&users_with_home(&sale.sale, ShardId::new(0), CONNECTIONS), &sale.node_url());

    // When one replica sleeps through the other's promotion, and takes over from it later.
    let faults = async {
        redis.freeze(sleeper);
        redis.kill(primary);
        redis.wait_until_promoted(successor).await.unwrap();
        let answers = Buyers::new(CONNECTIONS).buy_persistently(buyers, BUYING_TIME).await;
        redis.kill(successor);
        redis.thaw(sleeper);
        redis.wait_until_promoted(sleeper).await.unwrap();
        answers
    };
    let (of_successor, mut answers) = Buyers::new(CONNECTIONS).buy_during(&sale.node_url(), faults).await;
    println!("answers of the successor's shard: {:?}", tally(&of_successor));

    // Then every acknowledged purchase exists.
    redis.restart(primary).await.unwrap();
    redis.restart(successor).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    answers.extend(of_successor);
    assert_all_found(&sale, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_sells_again_when_sleeping_replica_is_forgotten() {
    // Given a promoted primary, and a replica that slept through the promotion.
    let sale = start_with_two_replicas().await;
    let redis = sale.stack.redis();
    let (primary, successor, sleeper) = primary_and_two_replicas(&sale).await;
    let sleeper_id: String = sale.query(sleeper, redis::cmd("CLUSTER").arg("MYID")).await;
    redis.freeze(sleeper);
    redis.kill(primary);
    redis.wait_until_promoted(successor).await.unwrap();

    // Then no purchase of its shard is acknowledged: the replica may still be promoted.
    let users = users_with_home(&sale.sale, ShardId::new(0), 2 * CONNECTIONS);
    let (users, more_users) = users.split_at(CONNECTIONS);
    let buyers = purchase_attempts(more_users, &sale.node_url());
    let answers = Buyers::new(CONNECTIONS).buy_persistently(buyers.clone(), BUYING_TIME).await;
    assert!(answers.iter().all(|answer| answer.status == Some(503)), "{:?}", tally(&answers));

    // Except on a node that may sell without a failed replica.
    let program = testkit::binary("flashsale-node").unwrap();
    let fallback = [("DURABILITY_FALLBACK".to_owned(), "primary".to_owned())];
    let lenient = sale.stack.start_separate_node(&program, &fallback).await.unwrap();
    let lenient_buyers = purchase_attempts(users, lenient.url());
    let answers = Buyers::new(CONNECTIONS).buy_persistently(lenient_buyers, BUYING_TIME).await;
    assert!(answers.iter().all(BuyerAnswer::is_definite), "{:?}", tally(&answers));

    // And when an operator forgets the replica, all nodes sell.
    let lost = [primary, sleeper];
    for server in redis.servers().await.into_iter().filter(|server| !lost.contains(&server.addr)) {
        sale.query::<()>(server.addr, redis::cmd("CLUSTER").arg("FORGET").arg(&sleeper_id)).await;
    }
    let answers = Buyers::new(CONNECTIONS).buy_persistently(buyers, BUYING_TIME).await;
    assert!(answers.iter().all(BuyerAnswer::is_definite), "{:?}", tally(&answers));
}

/// Looks up every user with an acknowledged purchase. The audit cannot find a loss: it sees only what Redis still
/// holds.
async fn assert_all_found(sale: &OpenSale, answers: &[BuyerAnswer]) {
    let acknowledged: Vec<&BuyerAnswer> = answers.iter().filter(|answer| answer.is_purchased()).collect();
    let mut lost = Vec::new();
    for answer in &acknowledged {
        let user = UserId::parse(&answer.user, UserIdKind::Opaque).unwrap();
        let shard = sale.sale.shard(sale.sale.ring().home(&user));
        let found = sale.cluster.read(Find { shard, users: &[user] }).await.unwrap().remove(0);
        if found.map(|claim| claim.order.to_string()) != answer.order {
            lost.push(&answer.user);
        }
    }
    println!("{} of {} acknowledged purchases exist", acknowledged.len() - lost.len(), acknowledged.len());
    assert!(acknowledged.len() > CONNECTIONS, "too few purchases for a meaningful test");
    assert!(lost.is_empty(), "{} of {} acknowledged purchases are lost", lost.len(), acknowledged.len());
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok, "{:?}", audit.violations);
}

async fn start_with_two_replicas() -> OpenSale {
    let options = StackOptions { nodes: 1, replicas_per_primary: 2, ..StackOptions::default() };
    OpenSale::start_with(StackOptions { sale: sale_options(UNITS), ..options }).await
}

/// The primary of the first shard, and its two replicas.
async fn primary_and_two_replicas(sale: &OpenSale) -> (SocketAddr, SocketAddr, SocketAddr) {
    let (primary, _) = sale.primary_and_replica(ShardId::new(0)).await;
    let [successor, sleeper] = sale.stack.redis().replicas_of(primary).await[..] else {
        panic!("two replicas")
    };
    (primary, successor, sleeper)
}

async fn set(sale: &OpenSale, server: SocketAddr, setting: &str, value: u32) {
    sale.query::<()>(server, redis::cmd("CONFIG").arg("SET").arg(setting).arg(value)).await;
}

/// Returns what a server says about its replicas. Empty when it does not answer.
async fn replication(sale: &OpenSale, server: SocketAddr) -> String {
    let Ok(mut connection) = sale.stack.redis().connection(server).await else { return String::new() };
    redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap_or_default()
}
