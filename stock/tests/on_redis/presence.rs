//! `presence`: processes say that they are there, and whoever asks reads who is.

use std::time::Duration;

use redis::cmd;
use stock::cluster::Cluster;
use stock::layout::PRESENCE_KEY;
use stock::presence::{Presence, PresenceUpdate, ProcessInfo, ProcessKind, ProcessList};
use testkit::{ClusterOptions, RedisCluster};

use crate::stage::client_of;

/// A cluster of its own: there is one list a cluster.
struct Stage {
    cluster: Cluster,
    redis: RedisCluster,
}

impl Stage {
    async fn new() -> Self {
        let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        Self { cluster: client_of(&redis).await, redis }
    }

    async fn says(&self, word: PresenceUpdate<'_>) -> ProcessList {
        self.cluster.poll(Presence { word: Some(word) }).await.unwrap()
    }

    async fn present(&self) -> ProcessList {
        self.cluster.poll(Presence { word: None }).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        names(&self.present().await)
    }

    /// What the list holds, put there or read past the function.
    async fn list<T: redis::FromRedisValue>(&self, command: &str, more: &[&str]) -> T {
        for primary in self.redis.primaries().await {
            let mut connection = self.redis.connection(primary).await.unwrap();
            if let Ok(answer) =
                cmd(command).arg(PRESENCE_KEY).arg(more).query_async::<T>(&mut connection).await
            {
                return answer;
            }
        }
        panic!("nobody serves the list");
    }
}

fn names(present: &ProcessList) -> Vec<String> {
    present.processes.iter().map(|process| process.introduction.name.clone()).collect()
}

fn of_kind(kind: ProcessKind, name: &str) -> ProcessInfo {
    ProcessInfo { name: name.into(), kind, version: "0.1.0".into() }
}

fn node(name: &str) -> ProcessInfo {
    of_kind(ProcessKind::Node, name)
}

#[tokio::test]
async fn who_says_so_is_there_with_its_age_until_it_goes() {
    let stage = Stage::new().await;
    let (ann, lead) = (node("ann:1/a"), of_kind(ProcessKind::Coordinator, "lead:2/b"));
    stage.says(PresenceUpdate::Here(&ann, Duration::from_secs(60))).await;

    let told = stage.says(PresenceUpdate::Here(&lead, Duration::ZERO)).await;

    let of = |index: usize| &told.processes[index];
    assert_eq!((&of(0).introduction, &of(1).introduction), (&lead, &ann), "coordinators come first");
    assert_eq!((of(0).started_at, of(0).seen_at), (told.at, told.at));
    assert_eq!(of(1).seen_at - of(1).started_at, 60_000);
    assert_eq!(stage.present().await.processes, told.processes, "asking changes nothing");

    assert_eq!(names(&stage.says(PresenceUpdate::Goodbye(&ann)).await), ["lead:2/b"]);
    assert_eq!(stage.names().await, ["lead:2/b"]);
}

#[tokio::test]
async fn who_says_it_again_is_there_once_and_seen_anew() {
    let stage = Stage::new().await;
    let ann = node("ann");
    let first = stage.says(PresenceUpdate::Here(&ann, Duration::ZERO)).await.processes.remove(0);

    let seen_later = async || {
        let again = stage.says(PresenceUpdate::Here(&ann, Duration::ZERO)).await.processes;
        again.len() == 1 && again[0].seen_at > first.seen_at
    };

    testkit::until("another millisecond", Duration::from_secs(5), seen_later).await.unwrap();
}

#[tokio::test]
async fn who_was_not_heard_of_for_ten_seconds_is_forgotten_by_whoever_looks() {
    let stage = Stage::new().await;
    let now = stage.present().await.at;
    let entry = |seconds: u64| format!("1:{}:node:0.1.0", now - 1_000 * seconds);
    let entries = ["silent", &entry(12), "slow", &entry(5), "garbled", "no entry"];
    stage.list::<u64>("HSET", &entries).await;

    assert_eq!(stage.names().await, ["slow"]);

    assert_eq!(stage.list::<Vec<String>>("HKEYS", &[]).await, ["slow"]);
}

#[tokio::test]
async fn the_list_is_bounded_and_who_is_on_it_stays() {
    let stage = Stage::new().await;
    let now = stage.present().await.at;
    let crowd: Vec<String> =
        (0..256).flat_map(|n| [format!("n{n:03}"), format!("1:{now}:node:0.1.0")]).collect();
    stage.list::<u64>("HSET", &crowd.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let told = stage.says(PresenceUpdate::Here(&node("one-too-many"), Duration::ZERO)).await;
    assert_eq!((told.processes.len(), names(&told).contains(&"one-too-many".into())), (256, false));

    let told = stage.says(PresenceUpdate::Here(&node("n007"), Duration::ZERO)).await;
    let again = told.processes.iter().find(|process| process.introduction.name == "n007").unwrap();
    assert_eq!((told.processes.len(), again.seen_at), (256, told.at));
}
