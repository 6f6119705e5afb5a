//! Barriers in the presence of servers that copy: one with a copy in progress, one outside the cluster, one whose link
//! is cut.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{Pipeline, cmd};
use rediscluster::{Address, Barrier, Call as _, CallError, Cluster, Connection, Primary};
use testkit::{ClusterOptions, RedisCluster, RedisServer, until};

use crate::fixture::{TestSale, attempts, buying, client_of, query_server};

/// The answer of a barrier without the confirmation of the one replica.
const UNCONFIRMED: Result<(), CallError> = Err(CallError::NotDurable { confirmed: 0, replicas: 1 });

/// Timeout of each wait. A failover takes about two seconds; the test decides how long a copy takes.
const LIMIT: Duration = Duration::from_secs(30);

/// Delay per key written to a copy, so that a copy takes seconds. A server of a cluster holds few keys here.
const SLOW_COPY_US_PER_KEY: u32 = 400_000;

#[tokio::test]
async fn barrier_fails_while_a_copy_is_in_progress() {
    // Given a promoted primary without replicas, which the map shows as such.
    let (redis, sale) = TestSale::on_own_cluster(&[100]).await;
    let (old, primary) = primary_and_replica_of(&redis, &sale).await;
    redis.kill(old);
    redis.wait_until_promoted(primary).await.unwrap();
    let without_replicas = wait_for_map(&sale.cluster, primary, 0).await;
    assert_eq!(try_purchase(&sale, &without_replicas, "ann").await, Ok(()), "a promoted primary must sell");

    // When the old primary starts to copy and is not online yet.
    set(&redis, primary, "rdb-key-save-delay", SLOW_COPY_US_PER_KEY).await;
    redis.restart(old).await.unwrap();
    let copying = async || replication(&redis, primary).await.contains("state=");
    until("a copy in progress", LIMIT, copying).await.unwrap();

    // Then the earlier map proves nothing: the copy lacks this purchase and may be promoted.
    let bought = try_purchase(&sale, &without_replicas, "bob").await;
    assert_eq!(bought, UNCONFIRMED, "{}", replication(&redis, primary).await);
    set(&redis, primary, "rdb-key-save-delay", 0).await;
}

#[tokio::test]
async fn barrier_requires_replica_that_joined_after_the_map() {
    // Given a map without the replica of a primary.
    let (redis, sale) = TestSale::on_own_cluster(&[100]).await;
    let (primary, _) = primary_and_replica_of(&redis, &sale).await;
    let known = wait_for_map(&sale.cluster, primary, 1).await;
    let without_replicas = Primary { replicas: Vec::new(), ..known.clone() };
    let mut connection = Connection::open(sale.cluster.options(), &known.address).await.unwrap();

    // Then no answer counts without the replica. With a newer map, answers that the replica confirmed count.
    let mut try_purchase = async |barrier: &Barrier| send(&mut connection, &sale, "ann", barrier).await;
    for _ in 0..2 {
        assert_eq!(try_purchase(&Barrier::all_replicas(&without_replicas)).await, UNCONFIRMED);
    }
    assert_eq!(try_purchase(&Barrier::all_replicas(&known)).await, Ok(()));
    assert_eq!(try_purchase(&Barrier::None).await, Ok(()));
}

#[tokio::test]
async fn barrier_fails_while_a_replica_has_no_link() {
    // Given a map without the replica of a primary. The replica has copied the primary and has lost its link.
    let (redis, sale) = TestSale::on_own_cluster(&[100]).await;
    let (primary, _) = primary_and_replica_of(&redis, &sale).await;
    let known = wait_for_map(&sale.cluster, primary, 1).await;
    let without_replicas = Primary { replicas: Vec::new(), ..known };
    redis.cut_replication(primary).await.unwrap();
    let cut = async || replication(&redis, primary).await.contains("connected_slaves:0");
    until("a link that is cut", LIMIT, cut).await.unwrap();

    // Then the primary alone proves nothing: the replica may be promoted.
    assert_eq!(try_purchase(&sale, &without_replicas, "ann").await, UNCONFIRMED);
    redis.restore_replication(primary).await.unwrap();
}

#[tokio::test]
async fn barrier_fails_when_second_replica_has_no_link() {
    // Given a map that lacks one of two replicas. That replica has copied the primary and has lost its link.
    let options = ClusterOptions { replicas_per_primary: 2, ..ClusterOptions::default() };
    let redis = RedisCluster::start(options).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[100]).await;
    let (primary, cut_off) = primary_and_replica_of(&redis, &sale).await;
    let known = wait_for_map(&sale.cluster, primary, 2).await;
    let mut with_one = known.clone();
    with_one.replicas.retain(|replica| replica.endpoint.port != cut_off.port());
    redis.cut_link(primary, cut_off).await.unwrap();
    let cut = async || replication(&redis, primary).await.contains("connected_slaves:1");
    until("a link that is cut", LIMIT, cut).await.unwrap();

    // Then the other replica's confirmation does not suffice: either replica may be promoted.
    let not_durable = Err(CallError::NotDurable { confirmed: 1, replicas: 1 });
    assert_eq!(try_purchase(&sale, &with_one, "ann").await, not_durable);

    // And when the link is back, a barrier that requires both holds.
    redis.restore_replication(primary).await.unwrap();
    let confirmed = async || try_purchase(&sale, &known, "ann").await.is_ok();
    until("a purchase that both replicas confirm", LIMIT, confirmed).await.unwrap();
}

#[tokio::test]
async fn recheck_needs_a_fresh_map_without_other_replicas() {
    // Given a barrier chosen while the map showed no replica of the primary.
    let (redis, sale) = TestSale::on_own_cluster(&[1]).await;
    let (primary, _) = primary_and_replica_of(&redis, &sale).await;
    let known = wait_for_map(&sale.cluster, primary, 1).await;
    let without_replicas = Barrier::all_replicas(&Primary { replicas: Vec::new(), ..known.clone() });

    // Then its answer does not count with a map that shows a replica. Nor does the answer of a server that is not a
    // primary.
    let recheck = |barrier: &Barrier| sale.cluster.recheck_barrier(&known.address, barrier);
    assert_eq!(recheck(&Barrier::all_replicas(&known)), Ok(()));
    assert_eq!(recheck(&without_replicas), UNCONFIRMED);
    let replica = &known.replicas[0].endpoint;
    assert!(matches!(sale.cluster.recheck_barrier(replica, &without_replicas), Err(CallError::NoReply(_))));

    // And no answer counts with a map that was not refreshed for seconds, as after a freeze.
    let is_refused = async || recheck(&Barrier::all_replicas(&known)).is_err();
    until("a map that is too old", LIMIT, is_refused).await.unwrap();
    sale.cluster.refresh().await.unwrap();
    assert_eq!(recheck(&Barrier::all_replicas(&known)), Ok(()));
}

#[tokio::test]
async fn outside_server_does_not_confirm_for_a_replica() {
    // Given a server outside the cluster that copies a primary, besides its replica.
    let (redis, sale) = TestSale::on_own_cluster(&[100]).await;
    let (primary, _) = primary_and_replica_of(&redis, &sale).await;
    let known = wait_for_map(&sale.cluster, primary, 1).await;
    let outside_server = RedisServer::start().await.unwrap();
    outside_server
        .replicate_as_separate_user(&mut redis.connection(primary).await.unwrap(), primary)
        .await
        .unwrap();
    let online = async || replication(&redis, primary).await.matches("state=online").count();
    until("the outside server online", LIMIT, async || online().await == 2).await.unwrap();
    let confirmed = async |user| try_purchase(&sale, &known, user).await.is_ok();
    until("a barrier that both confirm", LIMIT, || confirmed("ann")).await.unwrap();

    // When the replica can no longer follow, and the outside server can.
    redis.cut_replication(primary).await.unwrap();
    until("only the outside server online", LIMIT, async || online().await == 1).await.unwrap();

    // Then the outside server's confirmation proves nothing: the replica would be promoted without this purchase.
    let bought = try_purchase(&sale, &known, "bob").await;
    assert_eq!(bought, UNCONFIRMED, "{}", replication(&redis, primary).await);

    // And when the replica follows again, the same attempt is confirmed.
    redis.restore_replication(primary).await.unwrap();
    until("a confirmed purchase", LIMIT, || confirmed("bob")).await.unwrap();
}

/// Makes a purchase over a new connection, with the barrier that this primary's entry on the map requires.
async fn try_purchase(sale: &TestSale, primary: &Primary, user: &str) -> Result<(), CallError> {
    let mut connection = Connection::open(sale.cluster.options(), &primary.address).await.unwrap();
    send(&mut connection, sale, user, &Barrier::all_replicas(primary)).await
}

async fn send(
    connection: &mut Connection,
    sale: &TestSale,
    user: &str,
    barrier: &Barrier,
) -> Result<(), CallError> {
    let attempts = attempts([user]);
    let buy = buying(sale.shard(), &attempts);
    let mut pipeline = Pipeline::new();
    pipeline.add_command(buy.command());
    connection.send(pipeline, barrier).await?.next(&buy).map(drop)
}

/// Returns the primary of the first shard, and its replica.
async fn primary_and_replica_of(redis: &RedisCluster, sale: &TestSale) -> (SocketAddr, SocketAddr) {
    let primary = redis.primary_of(sale.shard().slot).await.unwrap();
    (primary, redis.replicas_of(primary).await[0])
}

/// Waits until the map shows the primary at this address with this many replicas, and returns it.
async fn wait_for_map(cluster: &Cluster, primary: SocketAddr, replicas: usize) -> Primary {
    let address = Address { host: primary.ip().to_string().into(), port: primary.port() };
    let on_the_map = || {
        let topology = cluster.topology();
        let primary = topology.primaries().iter().find(|primary| primary.address == address);
        primary.filter(|primary| primary.replicas.len() == replicas).cloned()
    };
    let refreshed = async || cluster.refresh().await.is_ok() && on_the_map().is_some();
    until("the primary on the map", LIMIT, refreshed).await.unwrap();
    on_the_map().expect("it was there just now")
}

async fn set(redis: &RedisCluster, server: SocketAddr, setting: &str, value: u32) {
    query_server::<()>(redis, server, cmd("CONFIG").arg("SET").arg(setting).arg(value)).await;
}

async fn replication(redis: &RedisCluster, server: SocketAddr) -> String {
    query_server(redis, server, cmd("INFO").arg("replication")).await
}
