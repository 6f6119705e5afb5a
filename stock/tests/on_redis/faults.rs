//! Servers that are no cluster, not there, frozen or dead: what a caller is told, and how soon.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use redis::cmd;
use stock::calls::{BuyOutcome, CallError, ReadLevel};
use stock::cluster::{Cluster, ClusterError};
use stock::connection::ConnectOptions;
use stock::ids::ShardId;
use stock::snapshot::confirm_sold_out;
use testkit::{ClusterOptions, RedisCluster, RedisServer, until};

use crate::stage::{TestSale, attempt, attempts, claim, claim_at_last, client_of, client_with, options};

/// Detecting a dead primary takes its timeout of a second, and the election about as long again.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// Five tries of the response timeout and as many looks at the map. Whoever is told nothing for longer is stuck.
const CALL_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_server_of_its_own_is_told_from_a_cluster() {
    let server = RedisServer::start().await.unwrap();

    let refused = Cluster::connect(options(&server.url())).await.err();

    let said = refused.expect("a server without a cluster was taken for one").to_string();
    assert_eq!(said, format!("{} is not a Redis Cluster node (cluster support is disabled)", server.addr()));
}

#[tokio::test]
async fn nobody_there_is_said_within_a_second_or_two() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    // While it listens, it takes connections and never says a word; once dropped, it refuses them.
    let seed = format!("redis://{addr}");
    unreachable_within(&seed, Duration::from_secs(2)).await;
    drop(nobody);
    unreachable_within(&seed, Duration::from_millis(500)).await;
}

async fn unreachable_within(seed: &str, limit: Duration) {
    let started = Instant::now();
    let refused = Cluster::connect(options(seed)).await.err();
    assert!(matches!(refused, Some(ClusterError::Unreachable(_))), "told {refused:?}");
    assert!(started.elapsed() < limit, "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn one_seed_that_answers_is_enough() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let [victim, ..] = redis.replicas().await[..] else { panic!("a cluster without replicas") };
    redis.kill(victim);

    let seeds = format!("redis://{victim},redis://{}", redis.primaries().await[0]);
    let cluster = client_with(options(&seeds)).await;

    assert_eq!(cluster.topology().primaries().len(), 3);
    assert_eq!(cluster.topology().unserved(), 0);
}

#[tokio::test]
async fn a_cluster_that_does_not_serve_every_slot_is_refused() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    // That a slot is served by nobody does not spread: each server is told.
    for server in redis.servers().await {
        let mut connection = redis.connection(server.addr).await.unwrap();
        cmd("CLUSTER").arg("DELSLOTS").arg(7).exec_async(&mut connection).await.unwrap();
    }

    let refused = Cluster::connect(options(&redis.seeds())).await.err();

    let said = refused.expect("a cluster with a hole was taken").to_string();
    assert_eq!(said, "1 of the cluster's 16384 slots are served by nobody");
}

/// The replica of the primary that serves the first shard.
async fn replica_of(redis: &RedisCluster, sale: &TestSale) -> SocketAddr {
    let mut connection = redis.connection(primary_of(sale)).await.unwrap();
    let (_, _, replicas): (String, u64, Vec<(String, u16, String)>) =
        cmd("ROLE").query_async(&mut connection).await.unwrap();
    SocketAddr::new(replicas[0].0.parse().unwrap(), replicas[0].1)
}

fn primary_of(sale: &TestSale) -> SocketAddr {
    sale.cluster.topology().primary(sale.shard().slot).unwrap().address.to_string().parse().unwrap()
}

/// Barriers that give up soon, so that a test of their failing is short.
fn impatient(redis: &RedisCluster) -> ConnectOptions {
    ConnectOptions { barrier_timeout: Duration::from_millis(50), ..options(&redis.seeds()) }
}

#[tokio::test]
async fn a_purchase_that_the_replica_did_not_confirm_is_not_called_one() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_with(impatient(&redis)).await, &[5]).await;
    let replica = replica_of(&redis, &sale).await;
    let ann = [attempt("ann")];
    let buy = || stock::calls::Buy { shard: sale.shard(), attempts: &ann, limit: None };

    redis.freeze(replica);
    let not_durable = Err(CallError::NotDurable { confirmed: 0, replicas: 1 });
    assert_eq!(sale.cluster.write(buy()).await, not_durable);
    assert!(sale.cluster.read(ReadLevel { shard: sale.shard() }).await.is_ok(), "reading needs no replica");

    // Once the cluster gives the replica up, the promise must not become cheaper for that.
    let given_up = async || {
        let nodes: String = sale.ask(cmd("CLUSTER").arg("NODES")).await;
        nodes.lines().any(|line| line.contains(&format!(":{}@", replica.port())) && line.contains("fail"))
    };
    until("the replica's being given up", FAILOVER_LIMIT, given_up).await.unwrap();
    sale.cluster.refresh().await.unwrap();
    assert_eq!(sale.cluster.write(buy()).await, not_durable);

    redis.thaw(replica);
    let told = async || sale.cluster.write(buy()).await.is_ok();
    until("a confirmed purchase", FAILOVER_LIMIT, told).await.unwrap();
    assert_eq!(sale.level().await.sold, 1, "all tries together are one purchase");
}

#[tokio::test]
async fn a_batch_over_all_primaries_answers_for_those_that_confirmed() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_with(impatient(&redis)).await, &[5, 5, 5]).await;
    redis.freeze(replica_of(&redis, &sale).await);

    let attempts = attempts(["ann"]);
    let buy = |shard| stock::calls::Buy { shard, attempts: &attempts, limit: None };
    let told = sale.cluster.write_all(&sale.sale.shards().iter().map(buy).collect::<Vec<_>>()).await;

    assert_eq!(told[0], Err(CallError::NotDurable { confirmed: 0, replicas: 1 }));
    assert!(told[1].is_ok() && told[2].is_ok(), "one slow replica spoiled the others' purchases: {told:?}");
}

#[tokio::test]
async fn a_call_to_a_killed_primary_ends_soon_and_its_replica_answers_later() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5]).await;
    let ann = attempt("ann");
    let bought = claim(sale.tries(&ann).await);
    let victim = primary_of(&sale);

    redis.kill(victim);
    let started = Instant::now();
    let told = sale.cluster.read(ReadLevel { shard: sale.shard() }).await;
    assert!(matches!(told, Err(CallError::NoReply(_))), "told {told:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());

    let answered = async || sale.cluster.read(ReadLevel { shard: sale.shard() }).await.is_ok();
    until("an answer of the promoted replica", FAILOVER_LIMIT, answered).await.unwrap();
    assert_eq!(sale.claim_of("ann").await, Some(bought), "a purchase that was confirmed is gone");

    redis.restart(victim).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    sale.cluster.refresh().await.unwrap();
    claim_at_last(sale.buys("bob").await);
}

/// A frozen primary refuses nothing and says nothing: its connections stay open.
#[tokio::test]
async fn a_frozen_primary_is_given_up_once_its_replica_took_over() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5]).await;
    let ann = attempt("ann");
    let bought = claim(sale.tries(&ann).await);
    let victim = primary_of(&sale);

    redis.freeze(victim);
    let level = async || {
        let started = Instant::now();
        let level = sale.cluster.read(ReadLevel { shard: sale.shard() }).await;
        assert!(started.elapsed() < CALL_LIMIT, "a call took {:?}", started.elapsed());
        level.is_ok()
    };
    until("an answer of the promoted replica", FAILOVER_LIMIT, level).await.unwrap();
    assert_ne!(primary_of(&sale), victim);
    assert_eq!(sale.claim_of("ann").await, Some(bought), "a purchase that was confirmed is gone");

    // Back, it believes for a moment that the slot is still its own; nobody may follow it.
    redis.thaw(victim);
    for _ in 0..50 {
        sale.cluster.refresh().await.unwrap();
        assert_ne!(primary_of(&sale), victim, "an old map was taken for news");
    }
    redis.wait_until_whole().await.unwrap();
    sale.cluster.refresh().await.unwrap();
    claim_at_last(sale.buys("bob").await);
}

/// Whoever holds a connection from before a failover finds a replica at its end: it refuses the calls, and to
/// wait as well, and the caller must learn the one that matters.
#[tokio::test]
async fn a_primary_that_became_a_replica_sends_callers_away() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5]).await;
    let (old, new) = (primary_of(&sale), replica_of(&redis, &sale).await);

    let mut connection = redis.connection(new).await.unwrap();
    cmd("CLUSTER").arg("FAILOVER").exec_async(&mut connection).await.unwrap();
    let swapped = async || redis.replicas().await.contains(&old);
    until("the primaries' swap", FAILOVER_LIMIT, swapped).await.unwrap();

    // A repeat where the map did not know yet that the old one is a replica now, and the barrier did not hold.
    let told = sale.buys("ann").await;
    assert!(matches!(told, BuyOutcome::Bought(_) | BuyOutcome::Repeat(_)), "told {told:?}");
    assert_eq!(primary_of(&sale), new);
}

#[tokio::test]
async fn without_replicas_there_is_nobody_to_wait_for() {
    let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
    let redis = RedisCluster::start(options).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5]).await;

    claim_at_last(sale.buys("ann").await);

    assert_eq!(redis.command_stats("wait").await.unwrap().calls, 0);
}

/// `min-replicas-to-write` is Redis' own way to forbid that a primary sells alone.
#[tokio::test]
async fn a_primary_that_wants_more_replicas_before_it_writes_did_nothing() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5]).await;
    let demand = |replicas: u8| {
        let mut cmd = cmd("CONFIG");
        cmd.arg("SET").arg("min-replicas-to-write").arg(replicas);
        cmd
    };
    let mut connection = redis.connection(primary_of(&sale)).await.unwrap();
    demand(2).exec_async(&mut connection).await.unwrap();

    let ann = attempts(["ann"]);
    let told =
        sale.cluster.write(stock::calls::Buy { shard: sale.shard(), attempts: &ann, limit: None }).await;
    assert!(matches!(&told, Err(error) if error.is_transient() && !error.is_unknown()), "told {told:?}");

    demand(0).exec_async(&mut connection).await.unwrap();
    assert_eq!(sale.level().await.sold, 0);
    claim_at_last(sale.buys("ann").await);
}

/// What a failover could take back does not count.
#[tokio::test]
async fn a_sale_is_sold_out_once_the_replicas_know_it() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_with(impatient(&redis)).await, &[1, 1, 0]).await;
    claim_at_last(sale.buys("ann").await);
    assert!(!confirm_sold_out(&sale.cluster, &sale.sale).await, "one unit is left");

    let replica = replica_of(&redis, &sale).await;
    redis.freeze(replica);
    let last = attempts(["bob"]);
    let second = sale.sale.shard(ShardId::new(1));
    sale.cluster.write(stock::calls::Buy { shard: second, attempts: &last, limit: None }).await.unwrap();
    assert!(
        !confirm_sold_out(&sale.cluster, &sale.sale).await,
        "the first shard's replica confirmed nothing"
    );

    redis.thaw(replica);
    let confirmed = async || confirm_sold_out(&sale.cluster, &sale.sale).await;
    until("the confirmation", FAILOVER_LIMIT, confirmed).await.unwrap();
}
