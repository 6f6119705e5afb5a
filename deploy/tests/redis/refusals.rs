//! States that only a person can resolve: the command changes nothing and prints the reason in one line.

use std::fs;

use testkit::until;

use crate::creation::assert_nothing_to_do;
use crate::fixture::{RedisFixture, TIME_LIMIT, cluster_with_a_key};

#[tokio::test(flavor = "multi_thread")]
async fn invalid_settings_are_refused_in_one_line() {
    let fixture = RedisFixture::new();
    let refusal = async |variable: &str, value: &str, words: &str| {
        let launch = fixture.cluster_launch(3).env(variable, value);
        fixture.finish(launch).await.assert_refusal(64, words);
    };
    refusal("PAIRS", "", "PAIRS (--pairs) must be set").await;
    refusal("PAIRS", "a:1", "a:1 is not host:port,host:port").await;
    refusal("PAIRS", "a:1,b", "a:1,b is not").await;
    refusal("PAIRS", "a:1,b:2,c:3", "is not host:port,host:port").await;
    refusal("PAIRS", "a:1,b:2 c:3,a:1", "a:1 is listed twice").await;
    refusal("REDIS_PASSWORD_FILE", "/nowhere/admin", "\"/nowhere/admin\": it cannot be read").await;
    refusal("REDIS_CA_FILE", "/nowhere/ca.crt", "\"/nowhere/ca.crt\": it cannot be read").await;
    refusal("WAIT_LIMIT", "30", "WAIT_LIMIT (--wait-limit) cannot be \"30\"").await;

    // An unknown command is refused, and the help names the limits.
    fixture.cluster(3, &["shrink"]).await.assert_refusal(64, "must be one of form, grow, check");
    let usage = fixture.cluster(3, &["--help"]).await;
    assert!(usage.output.contains("does not shrink a cluster"), "{}", usage.output);

    // The scripts that remain have a setting more.
    let rotate = fixture.rotation(3).env("CLI", "no-such-client");
    fixture.finish(rotate).await.assert_refusal(64, "there is no no-such-client");
    fixture.write_passwords("admin", &[""]);
    fixture.finish(fixture.rotation(3)).await.assert_refusal(64, "standard input has no password of admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_and_timeout_errors_are_one_line() {
    let mut fixture = RedisFixture::new();
    fixture.start_all(3).await;
    let right = fixture.password("admin");
    fixture.write_passwords("admin", &["a wrong one"]);
    fixture
        .cluster(3, &[])
        .await
        .assert_refusal(64, "does not let this user in: the login as \"admin\" is refused");

    fixture.write_passwords("admin", &[&right]);
    fixture.kill(4);
    let waited = fixture.finish(fixture.cluster_launch(3).env("WAIT_LIMIT", "1s")).await;
    waited.assert_refusal(1, "waited 1 s for localhost:");
    assert_eq!(fixture.map(0).len(), 1, "it started although a server was down");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_forgot_their_cluster_are_refused() {
    // Given a cluster with data whose servers all forgot it.
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        fixture.write(&format!("fs:{{{key}}}:meta"), key);
    }
    (0..6).for_each(|number| fixture.kill(number));
    for number in 0..6 {
        fs::remove_file(fixture.data(number).join("nodes.conf")).unwrap();
    }
    fixture.start_all(3).await;

    fixture.cluster(3, &[]).await.assert_refusal(1, "knows no other server: its nodes.conf is lost");
    assert!((0..6).all(|number| fixture.map(number).len() == 1), "a server was introduced");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_copy_never_copies_its_empty_partner() {
    // Given a primary that came back empty before its replica was promoted.
    let (mut fixture, holder) = cluster_with_a_key().await;
    fixture.kill(holder + 1);
    fixture.lose_data(holder);
    fixture.start(holder);
    fixture.start(holder + 1);
    fixture.wait_until_up(holder).await;
    fixture.wait_until_up(holder + 1).await;

    assert_copy_is_promoted(&fixture, holder + 1).await;
}

/// A replica copies from an address, regardless of the server that listens there.
#[tokio::test(flavor = "multi_thread")]
async fn replica_does_not_copy_an_emptied_primary() {
    // Given a primary that lost its disk and is back before the cluster notices.
    let (mut fixture, primary) = cluster_with_a_key().await;
    let copy = primary + 1;
    fixture.lose_data(primary);
    fixture.start(primary);
    fixture.wait_until_up(primary).await;
    // Some servers promote the replica before it connects to the empty server.
    let reached_empty_server = async || {
        let log = fs::read_to_string(fixture.process(copy).log()).unwrap();
        log.contains("Unable to AUTH to ") || fixture.leads(copy)
    };
    until("the replica's connection to the empty server", TIME_LIMIT, reached_empty_server).await.unwrap();

    assert_copy_is_promoted(&fixture, copy).await;

    // From now on the empty server accepts replicas, also after both have restarted.
    fixture.fail_over_to(primary).await;
    for number in [primary, copy] {
        fixture.start(number);
    }
    fixture.wait_until_up(copy).await;
    let linked = async || fixture.query(copy, "INFO replication").contains("master_link_status:up");
    until("a link to the primary", TIME_LIMIT, linked).await.unwrap();
}

/// Asserts that the copy becomes the primary: promoted by the cluster, or unchanged until an operator promotes it.
async fn assert_copy_is_promoted(fixture: &RedisFixture, copy: u16) {
    let run = fixture.finish(fixture.cluster_launch(3).env("WAIT_LIMIT", "4s")).await;
    assert_eq!(fixture.query(copy, "DBSIZE").trim_end(), "1", "the only copy is gone: {}", run.output);
    if run.code != Some(0) {
        assert!(run.output.contains("CLUSTER FAILOVER TAKEOVER"), "{}", run.output);
        fixture.query(copy, "CLUSTER FAILOVER TAKEOVER");
        fixture.cluster(3, &[]).await.assert_ok();
    }
    assert_eq!(fixture.read("fs:{a}:meta"), "kept");
    assert_eq!(fixture.leaders(3).await[usize::from(copy / 2)].0, copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_of_another_pair_is_refused() {
    // Given a replica that was told to follow another pair's primary.
    let fixture = RedisFixture::with_cluster_of(3).await;
    let other = fixture.id(2);
    fixture.query(1, &format!("CLUSTER REPLICATE {other}"));
    let own_line = || fixture.map(1).into_iter().find(|line| line.contains("myself")).unwrap();
    until("a replica of the other primary", TIME_LIMIT, async || own_line().contains(&other)).await.unwrap();

    // Then it is not told to follow its partner: it could be promoted there with the other pair's data.
    fixture.cluster(3, &[]).await.assert_refusal(1, "which is not its partner");
    assert!(own_line().contains(&other), "{}", own_line());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_pair_is_replaced_only_on_request() {
    // Given a cluster with keys, of which one pair has lost both disks, with nodes.conf.
    let (mut fixture, holder) = cluster_with_a_key().await;
    let tags: Vec<String> = (0..20).map(|tag| format!("fs:{{{tag}}}:meta")).collect();
    tags.iter().for_each(|key| fixture.write(key, "kept"));
    let own: Vec<String> = fixture.query(holder, "KEYS *").lines().map(str::to_owned).collect();
    let pair = [holder, holder + 1];
    pair.into_iter().for_each(|number| fixture.lose_data(number));
    for number in pair {
        fixture.start(number);
        fixture.wait_until_up(number).await;
    }

    // Then the loss is not accepted silently, and nothing is changed.
    let refused = fixture.cluster(3, &[]).await;
    refused.assert_refusal(1, "the data of slots ");
    assert!(refused.output.contains("repeat with --accept-data-loss"), "{}", refused.output);
    assert_eq!(fixture.map(holder).len(), 1, "an empty server was introduced");
    assert!(fixture.cluster(3, &["check"]).await.output.contains("is lost"));

    // On request the pair joins again, empty, with its slots. The other pairs keep their keys.
    fixture.cluster(3, &["grow", "--accept-data-loss"]).await.assert_ok();
    let slots: Vec<u32> = fixture.leaders(3).await.iter().map(|(_, slots)| *slots).collect();
    assert_eq!(slots, [5461, 5461, 5462]);
    let value = |key: &String| if own.contains(key) { "" } else { "kept" };
    assert!(own.len() > 1 && tags.iter().all(|key| fixture.read(key) == value(key)));
    assert_nothing_to_do(&fixture.cluster(3, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_members_and_second_clusters_are_refused() {
    // Given one cluster of three pairs and another of one pair.
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    for number in [6, 7] {
        fixture.start(number);
        fixture.wait_until_up(number).await;
    }
    fixture.query(6, &format!("CLUSTER MEET 127.0.0.1 {} {}", fixture.port(7), fixture.port(7) + 20));
    fixture.query(6, "CLUSTER ADDSLOTSRANGE 0 16383");
    until("their introduction", TIME_LIMIT, async || fixture.map(7).len() == 2).await.unwrap();
    fixture.write("fs:{a}:meta", "one");
    let wrote = async || fixture.query(6, "SET fs:{a}:meta two").trim_end() == "OK";
    until("a write to a fresh primary", TIME_LIMIT, wrote).await.unwrap();

    fixture.cluster(4, &[]).await.assert_refusal(1, "these are two clusters");
    fixture.cluster(2, &[]).await.assert_refusal(1, "which PAIRS does not name");
    assert_eq!((fixture.map(0).len(), fixture.map(6).len()), (6, 2), "the two clusters were joined");
}
