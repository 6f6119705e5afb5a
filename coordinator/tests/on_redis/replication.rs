//! The leader checks that replicas follow their primaries as the map says.

use coordinator::replication::Replication;
use testkit::{ClusterOptions, RedisCluster, RedisServer};

use crate::fixture::{coordinator_on, until, while_running};

#[tokio::test(flavor = "multi_thread")]
async fn leader_detects_lost_and_foreign_replicas() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let coordinator = coordinator_on(&redis).await;
    let primary = redis.primaries().await[0];
    while_running(&coordinator, async {
        // Given primaries whose replicas follow them.
        let all_follow = |r: &Replication| (r.listed, r.following, r.foreign) == (1, 1, 0);
        let healthy = async || {
            coordinator.replications().len() == 3 && coordinator.replications().iter().all(all_follow)
        };
        until("three primaries with a replica each", healthy).await;
        let sees = async |what: &str, expected: (usize, usize, usize)| {
            let is_so = |r: &Replication| {
                r.primary.to_string() == primary.to_string() && (r.listed, r.following, r.foreign) == expected
            };
            until(what, async || coordinator.replications().iter().any(is_so)).await;
        };

        // When one replica loses its link, the leader reports it, and also when the replica is back.
        redis.cut_replication(primary).await.unwrap();
        sees("a replica without a link", (1, 0, 0)).await;
        redis.restore_replication(primary).await.unwrap();
        sees("the replica again", (1, 1, 0)).await;

        // And when a server outside the cluster copies that primary, the leader reports that, too.
        let copier = RedisServer::start().await.unwrap();
        let mut replicate = redis::cmd("REPLICAOF");
        replicate.arg(primary.ip().to_string()).arg(primary.port());
        replicate.exec_async(&mut copier.connection().await.unwrap()).await.unwrap();
        sees("a copier that is not on the map", (1, 1, 1)).await;
    })
    .await;
}
