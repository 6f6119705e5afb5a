//! A cluster is formed of real servers, survives what a test does to it, and leaves nothing behind.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use testkit::{
    ClusterOptions, Failover, NetworkNamespace, RedisCluster, RedisServer, ServerBinary, ServerRole, ports,
    procfs::ProcessIdentity, until,
};

/// Detecting a dead primary takes its timeout, and the election about as long again.
const FAILOVER_LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_cluster_starts_whole_and_leaves_nothing_behind() {
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
async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
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
async fn a_frozen_server_is_silent_until_it_is_thawed() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let frozen = cluster.replicas().await[0];
    let role = async || cluster.servers().await.iter().find(|server| server.addr == frozen).unwrap().role;

    cluster.freeze(frozen);
    assert_eq!(role().await, ServerRole::Silent);
    cluster.thaw(frozen);
    until("the replica's answer", FAILOVER_LIMIT, async || role().await == ServerRole::Replica)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_saboteur_may_be_a_task_of_its_own() {
    let starting = tokio::spawn(RedisCluster::start(ClusterOptions::default()));
    let cluster = Arc::new(starting.await.unwrap().unwrap());
    let victim = cluster.replicas().await[0];

    let at_work = cluster.clone();
    let saboteur = tokio::spawn(async move {
        at_work.restart(victim).await?;
        at_work.wait_until_whole().await?;
        at_work.command_stats("ping").await
    });
    saboteur.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_slot_moves_to_a_primary_that_has_just_joined() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let slot = 12_182; // of the key `foo`
    let mut connection = cluster.connection(cluster.primary_of(slot).await.unwrap()).await.unwrap();
    redis::cmd("SET").arg("foo").arg("bar").exec_async(&mut connection).await.unwrap();

    let newcomer = cluster.add_primary().await.unwrap();
    cluster.move_slot(slot, newcomer).await.unwrap();

    assert_eq!(cluster.primary_of(slot).await.unwrap(), newcomer);
    let mut connection = cluster.connection(newcomer).await.unwrap();
    let moved: String = redis::cmd("GET").arg("foo").query_async(&mut connection).await.unwrap();
    assert_eq!(moved, "bar");
    assert_eq!((cluster.primaries().await.len(), cluster.replicas_of(newcomer).await.len()), (4, 1));
}

#[tokio::test]
async fn a_replica_takes_over_when_it_is_told_to() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    for how in [Failover::Agreed, Failover::Forced, Failover::Takeover] {
        let replica = cluster.replicas().await[0];
        cluster.fail_over_to(replica, how).await.unwrap();
        cluster.wait_until_whole().await.unwrap();
        assert!(cluster.primaries().await.contains(&replica), "{how:?}");
    }
}

#[tokio::test]
async fn an_islander_is_replaced_while_it_is_cut_off_and_comes_back() {
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
async fn calls_are_counted_over_all_primaries() {
    let cluster = RedisCluster::start(ClusterOptions::default()).await.unwrap();

    for primary in cluster.primaries().await {
        let mut connection = cluster.connection(primary).await.unwrap();
        redis::cmd("DBSIZE").exec_async(&mut connection).await.unwrap();
    }

    assert_eq!(cluster.command_stats("dbsize").await.unwrap().calls, 3);
}

#[tokio::test]
async fn a_server_of_its_own_is_no_cluster() {
    let server = RedisServer::start().await.unwrap();
    let mut connection = server.connection().await.unwrap();

    let slots: redis::RedisResult<redis::Value> =
        redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await;

    assert!(slots.unwrap_err().to_string().contains("cluster support disabled"));
}

#[tokio::test]
async fn a_server_that_dies_at_its_start_says_why() {
    let no_server_at_all = ServerBinary::at("/bin/cat").unwrap();
    let options = ClusterOptions { binary: Some(no_server_at_all), ..ClusterOptions::default() };

    let error = RedisCluster::start(options).await.unwrap_err();

    let words = format!("{error:#}");
    assert!(words.contains("ended early") && words.contains("unrecognized option '--port'"), "{words}");
}

#[tokio::test]
async fn a_servers_clock_can_be_set_while_it_runs() {
    // Given a cluster whose servers have clocks of their own.
    let options = ClusterOptions { clocks: true, ..ClusterOptions::default() };
    let cluster = RedisCluster::start(options).await.unwrap();
    let (replica, primary) = (cluster.replicas().await[0], cluster.primaries().await[0]);

    // When they are set forward and back, then they show it, and the others do not.
    for seconds in [3_600, -20] {
        cluster.set_clock(replica, SignedDuration::from_secs(seconds)).unwrap();
        let shown = async || seconds_ahead(&cluster, replica).await == seconds;
        until("the server shows the time that was set", Duration::from_secs(5), shown).await.unwrap();
        assert_eq!(seconds_ahead(&cluster, primary).await, 0);
    }

    // And a server keeps its clock over a restart, and has its place again.
    cluster.restart(replica).await.unwrap();
    assert_eq!(seconds_ahead(&cluster, replica).await, -20);
    cluster.wait_until_whole().await.unwrap();
}

/// How far a server's clock is ahead of ours, in whole seconds.
async fn seconds_ahead(cluster: &RedisCluster, server: SocketAddr) -> i64 {
    let mut connection = cluster.connection(server).await.expect("the server answers");
    let time = redis::cmd("TIME").query_async(&mut connection).await;
    let (seconds, micros): (i64, i64) = time.expect("TIME is two numbers");
    let shown = Timestamp::from_microsecond(seconds * 1_000_000 + micros).expect("a time of our days");
    shown.duration_since(Timestamp::now()).as_secs_f64().round() as i64
}
