//! Barriers against servers that copy: one whose copy is under way, one outside the cluster, one whose link is cut.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{Pipeline, cmd};
use stock::calls::{Buy, Call as _, CallError};
use stock::cluster::Cluster;
use stock::connection::{Barrier, Connection};
use stock::topology::{Address, Primary};
use testkit::{ClusterOptions, RedisCluster, RedisServer, until};

use crate::stage::{TestSale, attempts, client_of};

/// A failover takes some two seconds, and a copy as long as the test makes it.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes a copy take seconds: so long is each key written. A server that forms part of a cluster has few keys here.
const SLOW_COPY_US_PER_KEY: u32 = 400_000;

#[tokio::test]
async fn a_primary_is_not_alone_while_a_copy_is_under_way() {
    // Given a replica that was promoted, leads alone, and is on the map as such.
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[100]).await;
    let (old, leader) = pair_of(&redis, &sale).await;
    redis.kill(old);
    redis.wait_until_promoted(leader).await.unwrap();
    let alone = until_on_the_map(&sale.cluster, leader, 0).await;
    assert_eq!(told(&sale, &alone, "ann").await, Ok(()), "a promoted primary sells alone");

    // When the old primary copies, and is not online yet.
    set(&redis, leader, "rdb-key-save-delay", SLOW_COPY_US_PER_KEY).await;
    redis.restart(old).await.unwrap();
    let copying = async || replication(&redis, leader).await.contains("state=");
    until("a copy under way", LIMIT, copying).await.unwrap();

    // Then the map of before proves nothing: the copy lacks this purchase and can be promoted.
    assert_eq!(
        told(&sale, &alone, "bob").await,
        Err(CallError::NotDurable { confirmed: 0, replicas: 1 }),
        "{}",
        replication(&redis, leader).await
    );
    set(&redis, leader, "rdb-key-save-delay", 0).await;
}

#[tokio::test]
async fn a_replica_that_joined_after_the_map_must_confirm() {
    // Given a map without the replica of a primary.
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[100]).await;
    let (leader, _) = pair_of(&redis, &sale).await;
    let known = until_on_the_map(&sale.cluster, leader, 1).await;
    let alone = Primary { replicas: Vec::new(), ..known.clone() };
    let mut connection = Connection::open(sale.cluster.options(), &known.address).await.unwrap();

    // Then no answer counts without the replica, and with a newer map those count that it confirmed.
    let mut told = async |barrier: &Barrier| {
        let attempts = attempts(["ann"]);
        let buy = Buy { shard: sale.shard(), attempts: &attempts, limit: None };
        let mut pipeline = Pipeline::new();
        pipeline.add_command(buy.command());
        connection.send(pipeline, barrier).await.unwrap().next(&buy).map(drop)
    };
    let unknown = Err(CallError::NotDurable { confirmed: 0, replicas: 1 });
    assert_eq!(told(&Barrier::all_of(&alone)).await, unknown);
    assert_eq!(told(&Barrier::all_of(&alone)).await, unknown);
    assert_eq!(told(&Barrier::all_of(&known)).await, Ok(()));
    assert_eq!(told(&Barrier::None).await, Ok(()));
}

#[tokio::test]
async fn a_primary_is_not_alone_while_it_knows_a_replica_without_a_link() {
    // Given a map without the replica of a primary, which copied and lost its link since.
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[100]).await;
    let (leader, _) = pair_of(&redis, &sale).await;
    let known = until_on_the_map(&sale.cluster, leader, 1).await;
    let alone = Primary { replicas: Vec::new(), ..known };
    redis.cut_replication(leader).await.unwrap();
    let cut = async || replication(&redis, leader).await.contains("connected_slaves:0");
    until("a link that is cut", LIMIT, cut).await.unwrap();

    // Then the primary's word proves nothing: the replica can be promoted.
    assert_eq!(told(&sale, &alone, "ann").await, Err(CallError::NotDurable { confirmed: 0, replicas: 1 }));
    redis.restore_replication(leader).await.unwrap();
}

#[tokio::test]
async fn an_answer_needs_a_map_that_is_fresh_and_has_no_other_replicas() {
    // Given a barrier that was chosen while a primary had no replica on the map.
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[1]).await;
    let (leader, _) = pair_of(&redis, &sale).await;
    let known = until_on_the_map(&sale.cluster, leader, 1).await;
    let alone = Barrier::all_of(&Primary { replicas: Vec::new(), ..known.clone() });

    // Then its answer does not count with a map that shows one, nor does one of a server that is no primary.
    let supported = |barrier: &Barrier| sale.cluster.supports(&known.address, barrier);
    assert_eq!(supported(&Barrier::all_of(&known)), Ok(()));
    assert_eq!(supported(&alone), Err(CallError::NotDurable { confirmed: 0, replicas: 1 }));
    let replica = &known.replicas[0].endpoint;
    assert!(matches!(sale.cluster.supports(replica, &alone), Err(CallError::NoReply(_))));

    // And none counts with a map that nobody read for seconds, as after a freeze.
    let refused = async || supported(&Barrier::all_of(&known)).is_err();
    until("a map that is too old", LIMIT, refused).await.unwrap();
    sale.cluster.refresh().await.unwrap();
    assert_eq!(supported(&Barrier::all_of(&known)), Ok(()));
}

#[tokio::test]
async fn a_server_outside_the_cluster_confirms_for_no_replica() {
    // Given a server outside the cluster that copies a primary, beside its replica.
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[100]).await;
    let (leader, _) = pair_of(&redis, &sale).await;
    let known = until_on_the_map(&sale.cluster, leader, 1).await;
    let outsider = RedisServer::start().await.unwrap();
    outsider.copy_as_another_user(&mut redis.connection(leader).await.unwrap(), leader).await.unwrap();
    let both_follow = async || replication(&redis, leader).await.matches("state=online").count() == 2;
    until("the outsider's copy", LIMIT, both_follow).await.unwrap();
    let confirmed = async || told(&sale, &known, "ann").await.is_ok();
    until("a barrier that both confirm", LIMIT, confirmed).await.unwrap();

    // When the replica cannot follow any more, and the outsider does.
    redis.cut_replication(leader).await.unwrap();
    let outsider_follows = async || replication(&redis, leader).await.matches("state=online").count() == 1;
    until("the outsider alone", LIMIT, outsider_follows).await.unwrap();

    // Then the outsider's word proves nothing: the replica would be promoted without this purchase.
    assert_eq!(
        told(&sale, &known, "bob").await,
        Err(CallError::NotDurable { confirmed: 0, replicas: 1 }),
        "{}",
        replication(&redis, leader).await
    );

    // And once the replica follows again, the same attempt is confirmed.
    redis.restore_replication(leader).await.unwrap();
    let confirmed = async || told(&sale, &known, "bob").await.is_ok();
    until("a confirmed purchase", LIMIT, confirmed).await.unwrap();
}

/// What a buyer is told through a pipeline of its own, with the barrier that this primary's place on a map asks for.
async fn told(sale: &TestSale, primary: &Primary, user: &str) -> Result<(), CallError> {
    let mut connection = Connection::open(sale.cluster.options(), &primary.address).await.unwrap();
    let attempts = attempts([user]);
    let buy = Buy { shard: sale.shard(), attempts: &attempts, limit: None };
    let mut pipeline = Pipeline::new();
    pipeline.add_command(buy.command());
    connection.send(pipeline, &Barrier::all_of(primary)).await?.next(&buy).map(drop)
}

/// The primary of the first shard, and its replica.
async fn pair_of(redis: &RedisCluster, sale: &TestSale) -> (SocketAddr, SocketAddr) {
    let leader = redis.primary_of(sale.shard().slot).await.unwrap();
    (leader, redis.replicas_of(leader).await[0])
}

/// The primary at this address, once the map shows it with so many replicas.
async fn until_on_the_map(cluster: &Cluster, leader: SocketAddr, replicas: usize) -> Primary {
    let address = Address { host: leader.ip().to_string().into(), port: leader.port() };
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
    let mut connection = redis.connection(server).await.unwrap();
    cmd("CONFIG").arg("SET").arg(setting).arg(value).exec_async(&mut connection).await.unwrap();
}

async fn replication(redis: &RedisCluster, server: SocketAddr) -> String {
    let mut connection = redis.connection(server).await.unwrap();
    cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap()
}
