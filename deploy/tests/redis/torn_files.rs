//! A server whose append-only file has lost its end.

use std::fs::{self, File};

use testkit::until;

use crate::stage::{RedisFixture, SOON, with_a_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_with_a_torn_file_comes_back_empty_once_its_replica_leads() {
    // Given a primary that lost the end of its file, and was started before the cluster missed it.
    let (mut place, primary) = with_a_copied_key().await;
    tear(&mut place, primary);
    place.start(primary);

    // Then it refuses, and its replica leads with all that was written.
    let refused = async || !place.process(primary).is_running();
    until("the refusal of a torn file", SOON, refused).await.unwrap();
    assert!(place.process(primary).log_tail().contains("Unexpected end of file"), "it does not say why");
    let kept = async || place.ask(primary + 1, "GET fs:{a}:meta").trim_end() == "kept";
    until("its replica to lead with the key", SOON, kept).await.unwrap();

    // And once its folder is emptied, the script takes it in as a replica.
    place.lose(primary);
    place.start(primary);
    place.wait_until_up(primary).await;
    place.cluster(3, &[]).await.assert_ok();
    assert!(!place.leads(primary) && place.leads(primary + 1));
    assert_eq!(place.ask(primary, "DBSIZE").trim_end(), "1", "it has not its primary's data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_torn_file_starts_and_copies() {
    let (mut place, primary) = with_a_copied_key().await;
    let replica = primary + 1;
    tear(&mut place, replica);

    place.start(replica);

    place.wait_until_up(replica).await;
    let copied = async || place.ask(replica, "INFO replication").contains("master_link_status:up");
    until("its primary's data", SOON, copied).await.unwrap();
    assert_eq!(place.ask(replica, "DBSIZE").trim_end(), "1");
}

async fn with_a_copied_key() -> (RedisFixture, u16) {
    let (place, primary) = with_a_key().await;
    let has_it = async || place.ask(primary + 1, "DBSIZE").trim_end() == "1";
    until("the key at the replica", SOON, has_it).await.unwrap();
    (place, primary)
}

/// Kills a server and cuts some bytes off its append-only file.
fn tear(place: &mut RedisFixture, number: u16) {
    place.kill(number);
    let folder = place.data(number).join("appendonlydir");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(|file| file.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
    let file = File::options().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
}
