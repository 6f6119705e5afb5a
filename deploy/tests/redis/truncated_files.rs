//! A server whose append-only file has lost its end.

use std::fs::{self, File};

use testkit::until;

use crate::fixture::{RedisFixture, TIME_LIMIT, cluster_with_a_key};

#[tokio::test(flavor = "multi_thread")]
async fn primary_refuses_to_start_with_truncated_file() {
    // Given a primary that lost the end of its file, and was started before the cluster noticed.
    let (mut fixture, primary) = cluster_with_a_copied_key().await;
    truncate_file(&mut fixture, primary);
    fixture.start(primary);

    // Then it refuses to start, and its replica is promoted with all writes.
    let refused = async || !fixture.process(primary).is_running();
    until("the refusal of a truncated file", TIME_LIMIT, refused).await.unwrap();
    assert!(
        fixture.process(primary).log_tail().contains("Unexpected end of file"),
        "it does not log the reason"
    );
    let kept = async || fixture.query(primary + 1, "GET fs:{a}:meta").trim_end() == "kept";
    until("the promotion of its replica", TIME_LIMIT, kept).await.unwrap();

    // And once its folder is empty, the command adds it as a replica.
    fixture.lose_data(primary);
    fixture.start(primary);
    fixture.wait_until_up(primary).await;
    fixture.cluster(3, &[]).await.assert_ok();
    assert!(!fixture.leads(primary) && fixture.leads(primary + 1));
    assert_eq!(fixture.query(primary, "DBSIZE").trim_end(), "1", "it does not have its primary's data");
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_with_truncated_file_starts_and_copies() {
    let (mut fixture, primary) = cluster_with_a_copied_key().await;
    let replica = primary + 1;
    truncate_file(&mut fixture, replica);

    fixture.start(replica);

    fixture.wait_until_up(replica).await;
    let copied = async || fixture.query(replica, "INFO replication").contains("master_link_status:up");
    until("its primary's data", TIME_LIMIT, copied).await.unwrap();
    assert_eq!(fixture.query(replica, "DBSIZE").trim_end(), "1");
}

async fn cluster_with_a_copied_key() -> (RedisFixture, u16) {
    let (fixture, primary) = cluster_with_a_key().await;
    let holds_key = async || fixture.query(primary + 1, "DBSIZE").trim_end() == "1";
    until("the key at the replica", TIME_LIMIT, holds_key).await.unwrap();
    (fixture, primary)
}

/// Kills a server and truncates its append-only file by some bytes.
fn truncate_file(fixture: &mut RedisFixture, number: u16) {
    fixture.kill(number);
    let folder = fixture.data(number).join("appendonlydir");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(|file| file.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
    let file = File::options().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
}
