//! Servers restart with the data on their disks. Acknowledged purchases stay valid.

use std::time::Duration;

use stock::ids::ShardId;
use testkit::{Buyers, Failover, until};

use crate::fixture::{OpenSale, assert_repeats_recognized, buy_at, purchase_attempts};

/// Time until the cluster marks a server as failed: `cluster-node-timeout` of 1 s, then agreement of a majority.
const FAILURE_DETECTED_MAX: Duration = Duration::from_secs(15);
/// Number of bytes to truncate: some ten purchases. It is not a multiple of the size of an entry.
const TAIL_BYTES: u64 = 3_001;

#[tokio::test(flavor = "multi_thread")]
async fn primary_with_truncated_file_does_not_start() {
    // Given buyers with acknowledged purchases.
    let (sale, users, mut answers) = OpenSale::start_with_purchases(1_200, 60).await;

    // When their primary dies, its file loses its end, and it restarts before the cluster detects the failure.
    let redis = sale.stack.redis();
    let (primary, replica) = sale.primary_and_replica(ShardId::new(0)).await;
    redis.kill(primary);
    redis.cut_append_only_file(primary, TAIL_BYTES).unwrap();
    redis.start_server(primary).unwrap();

    // Then each buyer gets the same order again.
    answers.extend(buy_at(&sale.node_url(), &users).await);
    let bought_again = answers[users.len()..].iter().filter(|answer| answer.is_purchased()).count();
    assert_eq!(bought_again, 0, "of {} purchases, this number was bought again", users.len());
    assert_repeats_recognized(&answers);

    // And the replica is primary, because the old primary does not start.
    assert!(redis.primaries().await.contains(&replica));
    assert!(!redis.is_running(primary), "the server runs with a truncated file");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_replica_serves_only_after_manual_promotion() {
    // Given purchases on a primary and a replica that both died.
    let (sale, users, mut answers) = OpenSale::start_with_purchases(1_200, 20).await;
    let redis = sale.stack.redis();
    let (primary, replica) = sale.primary_and_replica(ShardId::new(0)).await;
    [primary, replica].iter().for_each(|&server| redis.kill(server));
    let failure_detected = async || redis.failed().await.contains(&primary);
    until("the cluster marks the primary as failed", FAILURE_DETECTED_MAX, failure_detected).await.unwrap();

    // When only the replica restarts, then it stays a replica, because it cannot know what it missed.
    redis.restart(replica).await.unwrap();
    let answers_meanwhile = Buyers::new(1).buy(purchase_attempts(&users[..1], &sale.node_url())).await;
    assert_eq!(answers_meanwhile[0].status, Some(503), "{answers_meanwhile:?}");
    assert!(redis.replicas().await.contains(&replica));

    // And once an operator promotes it, each buyer gets the same order again.
    redis.fail_over_to(replica, Failover::Forced).await.unwrap();
    answers.extend(buy_at(&sale.node_url(), &users).await);
    assert_repeats_recognized(&answers);
}
