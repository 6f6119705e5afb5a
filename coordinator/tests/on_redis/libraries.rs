//! Function libraries of several releases: each is kept on every primary while a process uses it, and removed afterwards.

use std::net::SocketAddr;
use std::time::Duration;

use coordinator::coordinator::Coordinator;
use redis::Value;
use stock::functions::{LIBRARY, LIBRARY_PREFIX};
use stock::lease::Lead;
use stock::presence::{Presence, ProcessInfo, ProcessKind};
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{TIMING, client_of, coordinator_on, send, until, while_running};

/// The digest of an older release's library.
const OLDER: &str = "01de27";

struct TwoReleases {
    redis: RedisCluster,
    coordinator: Coordinator,
}

impl TwoReleases {
    /// Starts a coordinator of this release on primaries that have the library of an older one. That differs only in the
    /// digest in its names.
    async fn start() -> Self {
        let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        let coordinator = coordinator_on(&redis).await;
        let older = LIBRARY.code.replace(&LIBRARY.name[LIBRARY_PREFIX.len()..], OLDER);
        for primary in redis.primaries().await {
            send::<String>(&redis, primary, redis::cmd("FUNCTION").arg("LOAD").arg(&older)).await;
        }
        Self { redis, coordinator }
    }

    /// Counts the primaries that have the older library, and those that have the library of this release.
    async fn holders(&self) -> (usize, usize) {
        let mut holders = (0, 0);
        for primary in self.redis.primaries().await {
            holders.0 += self.has(primary, &format!("{LIBRARY_PREFIX}{OLDER}")).await;
            holders.1 += self.has(primary, &LIBRARY.name).await;
        }
        holders
    }

    async fn has(&self, primary: SocketAddr, library: &str) -> usize {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(library);
        send::<Vec<Value>>(&self.redis, primary, &list).await.len()
    }

    /// Reports a node with this version as often as nodes do, for twice the time after which an unused library is removed.
    async fn report_node(&self, version: &str) {
        let client = client_of(&self.redis).await;
        let node =
            ProcessInfo { name: "old:1/node".into(), kind: ProcessKind::Node, version: version.into() };
        let reports = 2 * TIMING.library_unused_max.as_secs();
        for uptime in 1..=reports {
            client.poll(Presence::report(&node, Some(Duration::from_secs(uptime)))).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        client.poll(Presence::report(&node, None)).await.unwrap();
    }

    async fn wait_until_older_library_is_removed(&self) {
        until("the removal of the older library", async || self.holders().await == (0, 3)).await;
    }
}

#[tokio::test]
async fn libraries_of_all_releases_reach_a_primary_that_lost_them() {
    // Given primaries with two libraries. Nodes of the older release may not load theirs.
    let releases = TwoReleases::start().await;
    let primaries = releases.redis.primaries().await;

    // When one of them loses its functions.
    send::<()>(&releases.redis, primaries[0], redis::cmd("FUNCTION").arg("FLUSH")).await;

    // Then the coordinator brings both back.
    let both = until("both libraries", async || releases.holders().await == (3, 3));
    while_running(&releases.coordinator, both).await;
}

#[tokio::test]
async fn library_is_kept_while_an_old_process_runs() {
    let releases = TwoReleases::start().await;
    while_running(&releases.coordinator, async {
        // Given a node of the older release, then it keeps its library.
        releases.report_node(&format!("0.0.9+{OLDER}")).await;
        assert_eq!(releases.holders().await, (3, 3));

        // When the last process of that release has stopped, then its library is removed, and no other.
        releases.wait_until_older_library_is_removed().await;
    })
    .await;
}

#[tokio::test]
async fn library_is_not_removed_by_a_follower() {
    // Given another coordinator that leads.
    let releases = TwoReleases::start().await;
    let client = client_of(&releases.redis).await;
    let lead =
        async || client.poll(Lead { coordinator: "another", hold: TIMING.lease_duration }).await.unwrap();
    lead().await;
    let leading = async {
        loop {
            tokio::time::sleep(TIMING.lease_duration / 10).await;
            lead().await;
        }
    };

    // When this one follows for twice the time, then both libraries are still there.
    tokio::select! {
        () = while_running(&releases.coordinator, leading) => {}
        () = tokio::time::sleep(2 * TIMING.library_unused_max) => {}
    }
    assert_eq!(releases.holders().await, (3, 3));
}

#[tokio::test]
async fn library_is_kept_while_a_process_does_not_report_its_library() {
    let releases = TwoReleases::start().await;
    while_running(&releases.coordinator, async {
        releases.report_node("0.0.9").await;
        assert_eq!(releases.holders().await, (3, 3));
        releases.wait_until_older_library_is_removed().await;
    })
    .await;
}
