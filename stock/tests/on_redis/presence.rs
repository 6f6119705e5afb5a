//! `presence`: processes report that they are running, and any caller can list them.

use std::time::Duration;

use redis::cmd;
use rediscluster::Cluster;
use stock::layout::PRESENCE_KEY;
use stock::presence::{Presence, ProcessInfo, ProcessKind, ProcessList};
use testkit::RedisCluster;

use crate::fixture::{client_of, redis_without_replicas};

/// A dedicated cluster: there is one list per cluster.
struct Fixture {
    cluster: Cluster,
    redis: RedisCluster,
}

impl Fixture {
    async fn new() -> Self {
        let redis = redis_without_replicas().await;
        Self { cluster: client_of(&redis).await, redis }
    }

    async fn report(&self, process: &ProcessInfo, uptime: Option<Duration>) -> ProcessList {
        self.cluster.poll(Presence::report(process, uptime)).await.unwrap()
    }

    async fn list(&self) -> ProcessList {
        self.cluster.poll(Presence { update: None }).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        names(&self.list().await)
    }

    /// Runs a command on the list directly, without the function.
    async fn run_on_list<T: redis::FromRedisValue>(&self, command: &str, more: &[&str]) -> T {
        for primary in self.redis.primaries().await {
            let mut connection = self.redis.connection(primary).await.unwrap();
            if let Ok(answer) =
                cmd(command).arg(PRESENCE_KEY).arg(more).query_async::<T>(&mut connection).await
            {
                return answer;
            }
        }
        panic!("no primary has the list");
    }
}

fn names(list: &ProcessList) -> Vec<String> {
    list.processes.iter().map(|process| process.info.name.clone()).collect()
}

fn of_kind(kind: ProcessKind, name: &str) -> ProcessInfo {
    ProcessInfo { name: name.into(), kind, version: "0.1.0".into() }
}

fn node(name: &str) -> ProcessInfo {
    of_kind(ProcessKind::Node, name)
}

#[tokio::test]
async fn process_is_listed_with_age_until_it_leaves() {
    let fixture = Fixture::new().await;
    let (ann, lead) = (node("ann:1/a"), of_kind(ProcessKind::Coordinator, "lead:2/b"));
    fixture.report(&ann, Some(Duration::from_secs(60))).await;

    let answer = fixture.report(&lead, Some(Duration::ZERO)).await;

    let of = |index: usize| &answer.processes[index];
    assert_eq!((&of(0).info, &of(1).info), (&lead, &ann), "coordinators come first");
    assert_eq!((of(0).started_at, of(0).seen_at), (answer.at, answer.at));
    assert_eq!(of(1).seen_at - of(1).started_at, 60_000);
    assert_eq!(fixture.list().await.processes, answer.processes, "listing changes nothing");

    assert_eq!(names(&fixture.report(&ann, None).await), ["lead:2/b"]);
    assert_eq!(fixture.names().await, ["lead:2/b"]);
}

#[tokio::test]
async fn repeated_report_updates_the_entry() {
    let fixture = Fixture::new().await;
    let ann = node("ann");
    let first = fixture.report(&ann, Some(Duration::ZERO)).await.processes.remove(0);

    let seen_later = async || {
        let again = fixture.report(&ann, Some(Duration::ZERO)).await.processes;
        again.len() == 1 && again[0].seen_at > first.seen_at
    };

    testkit::until("another millisecond", Duration::from_secs(5), seen_later).await.unwrap();
}

#[tokio::test]
async fn silent_process_is_removed_after_ten_seconds() {
    let fixture = Fixture::new().await;
    let now = fixture.list().await.at;
    let entry = |seconds: u64| format!("1:{}:node:0.1.0", now - 1_000 * seconds);
    let entries = ["silent", &entry(12), "slow", &entry(5), "garbled", "no entry"];
    fixture.run_on_list::<u64>("HSET", &entries).await;

    assert_eq!(fixture.names().await, ["slow"]);

    assert_eq!(fixture.run_on_list::<Vec<String>>("HKEYS", &[]).await, ["slow"]);
}

#[tokio::test]
async fn full_list_keeps_its_entries() {
    let fixture = Fixture::new().await;
    let now = fixture.list().await.at;
    let crowd: Vec<String> =
        (0..256).flat_map(|n| [format!("n{n:03}"), format!("1:{now}:node:0.1.0")]).collect();
    fixture.run_on_list::<u64>("HSET", &crowd.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let answer = fixture.report(&node("one-too-many"), Some(Duration::ZERO)).await;
    assert_eq!((answer.processes.len(), names(&answer).contains(&"one-too-many".into())), (256, false));

    let answer = fixture.report(&node("n007"), Some(Duration::ZERO)).await;
    let again = answer.processes.iter().find(|process| process.info.name == "n007").unwrap();
    assert_eq!((answer.processes.len(), again.seen_at), (256, answer.at));
}
