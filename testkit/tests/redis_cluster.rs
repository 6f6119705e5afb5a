//! A cluster is formed of real servers, survives the faults that tests inject, and leaves nothing behind.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use redis::{Cmd, FromRedisValue};
use testkit::{
    ClusterOptions, Failover, NetworkNamespace, RedisCluster, RedisServer, ServerBinary, ServerRole, ports,
    procfs::ProcessIdentity, until,
};

/// The time to detect a dead primary is the node timeout, and the election takes about as long.
const FAILOVER_LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn cluster_starts_whole_and_stops_completely() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let servers = cluster.servers().await;
    let roles = |role| servers.iter().filter(|server| server.role == role).count();

    assert_eq!((roles(ServerRole::Primary), roles(ServerRole::Replica)), (3, 3));
    assert_eq!(cluster.seeds().split(',').count(), 6);
    assert!(cluster.used_memory_bytes().await.unwrap() > 0);

    let processes: Vec<_> = servers.iter().map(|server| ProcessIdentity::of(server.pid).unwrap()).collect();
    cluster.stop().await.unwrap();

    assert!(processes.iter().all(|process| !process.is_running()), "a server outlived its cluster");
    assert!(servers.iter().all(|server| ports::is_free(server.addr.port())), "a port is still taken");
}

#[tokio::test]
async fn killed_primary_is_replaced_and_rejoins_as_replica() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let victim = cluster.primaries().await[0];

    cluster.kill(victim);
    let replaced = async || cluster.primaries().await.len() == 3;
    until("the replica's promotion", FAILOVER_LIMIT, replaced).await.unwrap();
    cluster.restart(victim).await.unwrap();
    cluster.wait_until_whole().await.unwrap();

    assert!(cluster.replicas().await.contains(&victim));
}

#[tokio::test]
async fn frozen_server_is_silent_until_thawed() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let frozen = cluster.replicas().await[0];
    let role = async || cluster.servers().await.iter().find(|server| server.addr == frozen).unwrap().role;

    cluster.freeze(frozen);
    assert_eq!(role().await, ServerRole::Silent);
    cluster.thaw(frozen);
    let answers = async || role().await == ServerRole::Replica;
    until("the replica's answer", FAILOVER_LIMIT, answers).await.unwrap();
}

#[tokio::test]
async fn faults_can_run_in_a_spawned_task() {
    let starting = tokio::spawn(RedisCluster::start(ClusterOptions::default()));
    let cluster = Arc::new(starting.await.unwrap().unwrap());
    let victim = cluster.replicas().await[0];

    let shared = cluster.clone();
    let fault = tokio::spawn(async move {
        shared.restart(victim).await?;
        shared.wait_until_whole().await?;
        shared.command_stats("ping").await
    });
    fault.await.unwrap().unwrap();
}

#[tokio::test]
async fn slot_moves_to_a_newly_added_primary() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let slot = 12_182; // of the key `foo`
    let primary = cluster.primary_of(slot).await.unwrap();
    query::<()>(&cluster, primary, redis::cmd("SET").arg("foo").arg("bar")).await;

    let new_primary = cluster.add_primary().await.unwrap();
    cluster.move_slot(slot, new_primary).await.unwrap();

    assert_eq!(cluster.primary_of(slot).await.unwrap(), new_primary);
    assert_eq!(query::<String>(&cluster, new_primary, redis::cmd("GET").arg("foo")).await, "bar");
    assert_eq!((cluster.primaries().await.len(), cluster.replicas_of(new_primary).await.len()), (4, 1));
}

#[tokio::test]
async fn slot_move_ends_only_after_the_targets_replica_lists_the_slot() {
    // Given a target whose replica learns of no change.
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let (slot, target) = (0, cluster.primaries().await[1]);
    let replica = cluster.replicas_of(target).await[0];
    cluster.freeze(replica);

    // When a slot without keys moves there, then the move does not succeed.
    assert!(cluster.move_slot(slot, target).await.is_err(), "the replica cannot list the slot");

    // And when the replica is back, it does.
    cluster.thaw(replica);
    cluster.wait_until_whole().await.unwrap();
    cluster.move_slot(slot, target).await.unwrap();
    assert_eq!(cluster.primary_of(slot).await.unwrap(), target);
}

#[tokio::test]
async fn replica_takes_over_on_request() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    for how in [Failover::Agreed, Failover::Forced, Failover::Takeover] {
        let replica = cluster.replicas().await[0];
        cluster.fail_over_to(replica, how).await.unwrap();
        cluster.wait_until_whole().await.unwrap();
        assert!(cluster.primaries().await.contains(&replica), "{how:?}");
    }
}

#[tokio::test]
async fn disconnected_primary_is_replaced_and_rejoins() {
    if let Err(why) = NetworkNamespace::ensure_possible() {
        return println!("skipped: {why:#}");
    }
    let options = ClusterOptions { network_namespace: true, ..ClusterOptions::default() };
    let cluster = RedisCluster::start(options).await.unwrap();
    let namespaced_server = cluster.namespaced_server().unwrap();
    cluster.fail_over_to(namespaced_server, Failover::Agreed).await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let replica = cluster.replicas_of(namespaced_server).await[0];

    cluster.disconnect_namespaced_server().unwrap();
    cluster.wait_until_promoted(replica).await.unwrap();
    cluster.reconnect_namespaced_server().unwrap();
    cluster.wait_until_whole().await.unwrap();

    assert_eq!(cluster.replicas_of(replica).await, [namespaced_server]);
}

#[tokio::test]
async fn command_stats_cover_all_primaries() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();

    for primary in cluster.primaries().await {
        query::<()>(&cluster, primary, &redis::cmd("DBSIZE")).await;
    }

    assert_eq!(cluster.command_stats("dbsize").await.unwrap().calls, 3);
}

#[tokio::test]
async fn standalone_server_has_cluster_mode_disabled() {
    let server = RedisServer::start().await.unwrap();
    let mut connection = server.connection().await.unwrap();

    let slots: redis::RedisResult<redis::Value> =
        redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await;

    assert!(slots.unwrap_err().to_string().contains("cluster support disabled"));
}

#[tokio::test]
async fn start_error_contains_the_servers_output() {
    let not_a_server = ServerBinary::at("/bin/cat").unwrap();
    let options = ClusterOptions { binary: Some(not_a_server), ..ClusterOptions::default() };

    let error = RedisCluster::start(options).await.unwrap_err();

    let message = format!("{error:#}");
    assert!(message.contains("ended early") && message.contains("unrecognized option '--port'"), "{message}");
}

#[tokio::test]
async fn server_clock_can_be_set_while_running() {
    // Given a cluster whose servers have clocks that can be set.
    let options = ClusterOptions { clocks: true, ..ClusterOptions::default() };
    let cluster = RedisCluster::start(options).await.unwrap();
    let (replica, primary) = (cluster.replicas().await[0], cluster.primaries().await[0]);

    // When the clock of one server is set forward and back, then it shows that time, and the others do not.
    for seconds in [3_600, -20] {
        cluster.set_clock(replica, SignedDuration::from_secs(seconds)).unwrap();
        let shown = async || seconds_ahead(&cluster, replica).await == seconds;
        until("the server shows the time that was set", Duration::from_secs(5), shown).await.unwrap();
        assert_eq!(seconds_ahead(&cluster, primary).await, 0);
    }

    // And a restarted server keeps its clock and rejoins the cluster.
    cluster.restart(replica).await.unwrap();
    assert_eq!(seconds_ahead(&cluster, replica).await, -20);
    cluster.wait_until_whole().await.unwrap();
}

/// Offset of a server's clock from this machine's clock, in whole seconds.
async fn seconds_ahead(cluster: &RedisCluster, server: SocketAddr) -> i64 {
    let (seconds, micros): (i64, i64) = query(cluster, server, &redis::cmd("TIME")).await;
    let shown = Timestamp::from_microsecond(seconds * 1_000_000 + micros).expect("a valid timestamp");
    shown.duration_since(Timestamp::now()).as_secs_f64().round() as i64
}

async fn query<T: FromRedisValue>(cluster: &RedisCluster, server: SocketAddr, command: &Cmd) -> T {
    let mut connection = cluster.connection(server).await.expect("the server answers");
    command.query_async(&mut connection).await.expect("an answer of that type")
}
