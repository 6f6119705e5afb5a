//! Servers that are not part of a cluster, missing, frozen or dead: the answers of calls, and how soon they come.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use redis::cmd;
use rediscluster::{CallError, Cluster, ClusterError, ConnectOptions};
use stock::calls::{BuyOutcome, ReadLevel};
use stock::functions::LIBRARY;
use stock::snapshot::confirm_sold_out;
use testkit::{ClusterOptions, RedisCluster, RedisServer, until};

use crate::fixture::{
    TestSale, attempt, attempts, buying, claim, client_of, client_with, eventual_claim, options,
    query_server, redis_without_replicas,
};

/// Detecting a dead primary takes its timeout of one second; the election takes about as long again.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// Five tries with the response timeout, and as many map refreshes. A call that takes longer is stuck.
const CALL_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn connect_rejects_a_standalone_server() {
    let server = RedisServer::start().await.unwrap();

    let refused = Cluster::connect(options(&server.url()), &LIBRARY).await.err();

    let error_text = refused.expect("a standalone server was accepted").to_string();
    let expected = format!("{} is not a Redis Cluster node (cluster support is disabled)", server.addr());
    assert_eq!(error_text, expected);
}

#[tokio::test]
async fn connect_fails_soon_without_a_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // While it listens, it accepts connections and never replies; once dropped, it refuses them.
    let seed = format!("redis://{addr}");
    unreachable_within(&seed, Duration::from_secs(2)).await;
    drop(listener);
    unreachable_within(&seed, Duration::from_millis(500)).await;
}

async fn unreachable_within(seed: &str, limit: Duration) {
    let started = Instant::now();
    let refused = Cluster::connect(options(seed), &LIBRARY).await.err();
    assert!(matches!(refused, Some(ClusterError::Unreachable(_))), "got {refused:?}");
    assert!(started.elapsed() < limit, "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn connect_succeeds_with_one_live_seed() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let [victim, ..] = redis.replicas().await[..] else { panic!("a cluster without replicas") };
    redis.kill(victim);

    let seeds = format!("redis://{victim},redis://{}", redis.primaries().await[0]);
    let cluster = client_with(options(&seeds)).await;

    assert_eq!(cluster.topology().primaries().len(), 3);
    assert_eq!(cluster.topology().unserved(), 0);
}

#[tokio::test]
async fn connect_rejects_a_cluster_with_missing_slots() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    // A slot without an owner is not propagated, so each server is told to drop it.
    for server in redis.servers().await {
        query_server::<()>(&redis, server.addr, cmd("CLUSTER").arg("DELSLOTS").arg(7)).await;
    }

    let refused = Cluster::connect(options(&redis.seeds()), &LIBRARY).await.err();

    let error_text = refused.expect("a cluster with an unserved slot was accepted").to_string();
    assert_eq!(error_text, "1 of the cluster's 16384 slots have no primary");
}

/// Returns the replica of the primary that serves the first shard.
async fn replica_of(redis: &RedisCluster, sale: &TestSale) -> SocketAddr {
    redis.replicas_of(sale.primary_of(sale.shard())).await[0]
}

/// Creates a sale on a cluster of its own, with a short barrier timeout, so that tests with failing barriers are short.
async fn with_short_barriers(tokens: &[u64]) -> (RedisCluster, TestSale) {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let options = ConnectOptions { barrier_timeout: Duration::from_millis(50), ..options(&redis.seeds()) };
    let sale = TestSale::on(client_with(options).await, tokens).await;
    (redis, sale)
}

#[tokio::test]
async fn unconfirmed_purchase_is_not_durable() {
    let (redis, sale) = with_short_barriers(&[5]).await;
    let replica = replica_of(&redis, &sale).await;
    let ann = [attempt("ann")];
    let buy = || buying(sale.shard(), &ann);

    redis.freeze(replica);
    let not_durable = Err(CallError::NotDurable { confirmed: 0, replicas: 1 });
    assert_eq!(sale.cluster.write(buy()).await, not_durable);
    assert!(sale.cluster.read(ReadLevel { shard: sale.shard() }).await.is_ok(), "reading needs no replica");

    // The barrier must not become weaker when the cluster marks the replica as failed.
    let given_up = async || {
        let nodes: String = sale.query(cmd("CLUSTER").arg("NODES")).await;
        nodes.lines().any(|line| line.contains(&format!(":{}@", replica.port())) && line.contains("fail"))
    };
    until("the replica marked as failed", FAILOVER_LIMIT, given_up).await.unwrap();
    sale.cluster.refresh().await.unwrap();
    assert_eq!(sale.cluster.write(buy()).await, not_durable);

    redis.thaw(replica);
    let answer = async || sale.cluster.write(buy()).await.is_ok();
    until("a confirmed purchase", FAILOVER_LIMIT, answer).await.unwrap();
    assert_eq!(sale.level().await.sold, 1, "all tries together are one purchase");
}

#[tokio::test]
async fn frozen_replica_fails_only_calls_of_its_primary() {
    let (redis, sale) = with_short_barriers(&[5, 5, 5]).await;
    redis.freeze(replica_of(&redis, &sale).await);

    let attempts = attempts(["ann"]);
    let buy = |shard| buying(shard, &attempts);
    let answer = sale.cluster.write_all(&sale.sale.shards().iter().map(buy).collect::<Vec<_>>()).await;

    assert_eq!(answer[0], Err(CallError::NotDurable { confirmed: 0, replicas: 1 }));
    assert!(answer[1].is_ok() && answer[2].is_ok(), "it spoiled the others' purchases: {answer:?}");
}

#[tokio::test]
async fn replica_answers_after_its_primary_is_killed() {
    let (redis, sale) = TestSale::on_own_cluster(&[5]).await;
    let ann = attempt("ann");
    let bought = claim(sale.try_buy(&ann).await);
    let victim = sale.primary_of(sale.shard());

    redis.kill(victim);
    let started = Instant::now();
    let answer = sale.cluster.read(ReadLevel { shard: sale.shard() }).await;
    assert!(matches!(answer, Err(CallError::NoReply(_))), "got {answer:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());

    let answered = async || sale.cluster.read(ReadLevel { shard: sale.shard() }).await.is_ok();
    until("an answer of the promoted replica", FAILOVER_LIMIT, answered).await.unwrap();
    assert_eq!(sale.claim_of("ann").await, Some(bought), "a purchase that was confirmed is gone");

    redis.restart(victim).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    sale.cluster.refresh().await.unwrap();
    eventual_claim(sale.buy("bob").await);
}

/// A frozen primary neither refuses nor replies: its connections stay open.
#[tokio::test]
async fn frozen_primary_is_abandoned_after_promotion() {
    let (redis, sale) = TestSale::on_own_cluster(&[5]).await;
    let ann = attempt("ann");
    let bought = claim(sale.try_buy(&ann).await);
    let victim = sale.primary_of(sale.shard());

    redis.freeze(victim);
    let level = async || {
        let started = Instant::now();
        let level = sale.cluster.read(ReadLevel { shard: sale.shard() }).await;
        assert!(started.elapsed() < CALL_LIMIT, "a call took {:?}", started.elapsed());
        level.is_ok()
    };
    until("an answer of the promoted replica", FAILOVER_LIMIT, level).await.unwrap();
    assert_ne!(sale.primary_of(sale.shard()), victim);
    assert_eq!(sale.claim_of("ann").await, Some(bought), "a purchase that was confirmed is gone");

    // Once thawed, it believes for a moment that it still owns the slot. No client may follow it.
    redis.thaw(victim);
    for _ in 0..50 {
        sale.cluster.refresh().await.unwrap();
        assert_ne!(sale.primary_of(sale.shard()), victim, "an old map was accepted");
    }
    redis.wait_until_whole().await.unwrap();
    sale.cluster.refresh().await.unwrap();
    eventual_claim(sale.buy("bob").await);
}

/// A connection from before a failover may end at a replica. The replica refuses both the calls and `WAIT`, and the
/// caller must get the error of the calls.
#[tokio::test]
async fn demoted_primary_redirects_callers() {
    let (redis, sale) = TestSale::on_own_cluster(&[5]).await;
    let (old, new) = (sale.primary_of(sale.shard()), replica_of(&redis, &sale).await);

    query_server::<()>(&redis, new, cmd("CLUSTER").arg("FAILOVER")).await;
    let swapped = async || redis.replicas().await.contains(&old);
    until("the primaries' swap", FAILOVER_LIMIT, swapped).await.unwrap();

    // The result is a repeat when the map did not show yet that the old primary is a replica, and the barrier failed.
    let answer = sale.buy("ann").await;
    assert!(matches!(answer, BuyOutcome::Bought(_) | BuyOutcome::Repeat(_)), "got {answer:?}");
    assert_eq!(sale.primary_of(sale.shard()), new);
}

#[tokio::test]
async fn barrier_does_not_wait_without_replicas() {
    let redis = redis_without_replicas().await;
    let sale = TestSale::on(client_of(&redis).await, &[5]).await;

    eventual_claim(sale.buy("ann").await);

    assert_eq!(redis.command_stats("wait").await.unwrap().calls, 0);
}

/// `min-replicas-to-write` is Redis' own setting to prevent a primary without replicas from accepting writes.
#[tokio::test]
async fn call_without_enough_replicas_has_no_effect() {
    let (redis, sale) = TestSale::on_own_cluster(&[5]).await;
    let primary = sale.primary_of(sale.shard());
    let demand = async |replicas: u8| {
        let mut demand = cmd("CONFIG");
        demand.arg("SET").arg("min-replicas-to-write").arg(replicas);
        query_server::<()>(&redis, primary, &demand).await;
    };
    demand(2).await;

    let answer = sale.cluster.write(buying(sale.shard(), &attempts(["ann"]))).await;
    assert!(matches!(&answer, Err(error) if error.is_transient() && !error.is_unknown()), "got {answer:?}");

    demand(0).await;
    assert_eq!(sale.level().await.sold, 0);
    eventual_claim(sale.buy("ann").await);
}

/// A sale that a failover could undo does not count.
#[tokio::test]
async fn sold_out_needs_confirmation_by_replicas() {
    let (redis, sale) = with_short_barriers(&[1, 1, 0]).await;
    eventual_claim(sale.buy("ann").await);
    assert!(!confirm_sold_out(&sale.cluster, &sale.sale).await, "one unit is left");

    let replica = replica_of(&redis, &sale).await;
    redis.freeze(replica);
    sale.cluster.write(buying(sale.shard_at(1), &attempts(["bob"]))).await.unwrap();
    assert!(!confirm_sold_out(&sale.cluster, &sale.sale).await, "the first replica confirmed nothing");

    redis.thaw(replica);
    let confirmed = async || confirm_sold_out(&sale.cluster, &sale.sale).await;
    until("the confirmation", FAILOVER_LIMIT, confirmed).await.unwrap();
}
