//! Servers come back with what their disks have: what buyers were told is still so.

use std::time::Duration;

use stock::ids::ShardId;
use testkit::{Buyers, Failover, until};

use crate::actors::{OpenSale, assert_repeats_recognised, purchases, users_at_home_in, wishes};
use crate::failover::primary_and_replica;

/// The cluster gives a server up after its timeout of 1 s, and once most of the others agree.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// How long a buyer keeps trying: longer than the cluster needs to replace a server.
const PERSISTENCE: Duration = Duration::from_secs(20);
/// Some ten purchases; no multiple of anything that is written.
const TAIL_BYTES: u64 = 3_001;

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_with_a_torn_file_does_not_lead() {
    // Given buyers who were told that they have a unit.
    let sale = OpenSale::of(1_200).await;
    let node = sale.stack.nodes()[0].url().to_owned();
    let users = users_at_home_in(&sale.sale, ShardId::new(0), 60);
    let mut answers = Buyers::new(8).buy(wishes(&users, &node)).await;
    assert_eq!(purchases(&answers).len(), users.len());

    // When their primary dies, the end of its file is lost, and it is started before the cluster misses it.
    let redis = sale.stack.redis();
    let (primary, replica) = primary_and_replica(&sale, ShardId::new(0)).await;
    redis.kill(primary);
    redis.cut_append_only_file(primary, TAIL_BYTES).unwrap();
    redis.start_server(primary).unwrap();

    // Then each of them is told of the same order.
    answers.extend(Buyers::new(8).buy_persistently(wishes(&users, &node), PERSISTENCE).await);
    let told_twice = answers[users.len()..].iter().filter(|answer| answer.is_purchased()).count();
    assert_eq!(told_twice, 0, "of {} purchases so many are forgotten", users.len());
    assert_repeats_recognised(&answers);

    // And the replica leads, since the primary does not start.
    assert!(redis.primaries().await.contains(&replica));
    assert!(!redis.is_running(primary), "it serves what is left of its file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_back_alone_serves_once_it_is_told_to_lead() {
    // Given purchases on a pair whose servers both died.
    let sale = OpenSale::of(1_200).await;
    let node = sale.stack.nodes()[0].url().to_owned();
    let users = users_at_home_in(&sale.sale, ShardId::new(0), 20);
    let mut answers = Buyers::new(8).buy(wishes(&users, &node)).await;
    assert_eq!(purchases(&answers).len(), users.len());
    let redis = sale.stack.redis();
    let (primary, replica) = primary_and_replica(&sale, ShardId::new(0)).await;
    [primary, replica].iter().for_each(|&server| redis.kill(server));
    let given_up = async || redis.failed().await.contains(&primary);
    until("the cluster gives the primary up", GIVEN_UP, given_up).await.unwrap();

    // When only the replica is back, then it stays a replica, for it cannot know what it missed.
    redis.restart(replica).await.unwrap();
    let told = Buyers::new(1).buy(wishes(&users[..1], &node)).await;
    assert_eq!(told[0].status, Some(503), "{told:?}");
    assert!(redis.replicas().await.contains(&replica));

    // And once an operator has it lead, each buyer is told of the same order.
    redis.fail_over_to(replica, Failover::Forced).await.unwrap();
    answers.extend(Buyers::new(8).buy_persistently(wishes(&users, &node), PERSISTENCE).await);
    assert_repeats_recognised(&answers);
}
