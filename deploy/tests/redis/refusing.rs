//! What nobody but a person can decide is left as it is, with a line that says why.

use std::fs;

use testkit::until;

use crate::stage::{RedisFixture, SOON, with_a_key};

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_one_line() {
    let place = RedisFixture::new();
    let refusal = async |variable: &str, value: &str, words: &str| {
        let launch = place.cluster_launch(3).env(variable, value);
        place.finish(launch).await.assert_refusal(64, words);
    };
    refusal("PAIRS", "", "PAIRS is required").await;
    refusal("PAIRS", "a:1", "a:1 is not host:port,host:port").await;
    refusal("PAIRS", "a:1,b", "a:1,b is not").await;
    refusal("PAIRS", "a:1,b:2,c:3", "is not host:port,host:port").await;
    refusal("PAIRS", "a:1,b:2 c:3,a:1", "a:1 stands there twice").await;
    refusal("PASSWORDS_FOLDER", "/nowhere", "/nowhere/admin cannot be read").await;
    refusal("TLS_FOLDER", "/nowhere", "/nowhere/ca.crt cannot be read").await;
    refusal("CLI", "no-such-client", "there is no no-such-client").await;

    // And a word that it does not know is answered with what there is.
    let usage = place.cluster(3, &["shrink"]).await;
    assert!(usage.code == Some(64) && usage.said.contains("It does not shrink a cluster"), "{}", usage.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_silent_server_are_one_line_each() {
    let mut place = RedisFixture::new();
    place.start_all(3).await;
    let right = place.password("admin");
    place.write_passwords("admin", &["a wrong one"]);
    place.cluster(3, &[]).await.assert_refusal(64, "does not let admin in: AUTH failed: WRONGPASS");

    place.write_passwords("admin", &[&right]);
    place.kill(4);
    let waited = place.finish(place.cluster_launch(3).env("WAIT_LIMIT", 1)).await;
    waited.assert_refusal(1, "waited 1 s for localhost:");
    assert_eq!(place.map(0).len(), 1, "it began although a server was missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_data_that_forgot_their_cluster_are_not_made_into_one() {
    // Given a cluster with data, all of whose servers forgot it.
    let mut place = RedisFixture::with_cluster_of(3).await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        place.write(&format!("fs:{{{key}}}:meta"), key);
    }
    (0..6).for_each(|number| place.kill(number));
    for number in 0..6 {
        fs::remove_file(place.data(number).join("nodes.conf")).unwrap();
    }
    place.start_all(3).await;

    place.cluster(3, &[]).await.assert_refusal(1, "knows no other server: its nodes.conf is lost");
    assert!((0..6).all(|number| place.map(number).len() == 1), "somebody was introduced");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_copy_of_a_pair_is_never_told_to_copy_its_empty_partner() {
    // Given a primary that came back with nothing before its replica was promoted.
    let (mut place, holder) = with_a_key().await;
    place.kill(holder + 1);
    place.lose(holder);
    place.start(holder);
    place.start(holder + 1);
    place.wait_until_up(holder).await;
    place.wait_until_up(holder + 1).await;

    assert_the_copy_comes_to_lead(&place, holder + 1).await;
}

/// A replica copies an address, whoever is there now.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_back_with_nothing_at_once_is_not_copied_by_its_replica() {
    // Given a primary that lost its disk and is back before anybody misses it.
    let (mut place, primary) = with_a_key().await;
    let copy = primary + 1;
    place.lose(primary);
    place.start(primary);
    place.wait_until_up(primary).await;
    // Some servers have the copy lead before it ever looks who is there now.
    let knocked = async || {
        let log = fs::read_to_string(place.process(copy).log()).unwrap();
        log.contains("Unable to AUTH to ") || place.leads(copy)
    };
    until("the replica at an empty server's door", SOON, knocked).await.unwrap();

    assert_the_copy_comes_to_lead(&place, copy).await;

    // It lets a replica in from now on, after a restart of both as well.
    place.fail_over_to(primary).await;
    for number in [primary, copy] {
        place.start(number);
    }
    place.wait_until_up(copy).await;
    let linked = async || place.ask(copy, "INFO replication").contains("master_link_status:up");
    until("a link to who leads", SOON, linked).await.unwrap();
}

/// Either the cluster promotes the copy by itself, or it is left as it is, for a person to promote.
async fn assert_the_copy_comes_to_lead(place: &RedisFixture, copy: u16) {
    let run = place.finish(place.cluster_launch(3).env("WAIT_LIMIT", 4)).await;
    assert_eq!(place.ask(copy, "DBSIZE").trim_end(), "1", "the only copy is gone: {}", run.said);
    if run.code != Some(0) {
        assert!(run.said.contains("CLUSTER FAILOVER TAKEOVER"), "{}", run.said);
        place.ask(copy, "CLUSTER FAILOVER TAKEOVER");
        place.cluster(3, &[]).await.assert_ok();
    }
    assert_eq!(place.read("fs:{a}:meta"), "kept");
    assert_eq!(place.leaders(3).await[usize::from(copy / 2)].0, copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_it_was_not_told_of_and_second_clusters_are_refused() {
    // Given one cluster of three pairs and one of a single pair.
    let mut place = RedisFixture::with_cluster_of(3).await;
    for number in [6, 7] {
        place.start(number);
        place.wait_until_up(number).await;
    }
    place.ask(6, &format!("CLUSTER MEET 127.0.0.1 {} {}", place.port(7), place.port(7) + 20));
    place.ask(6, "CLUSTER ADDSLOTSRANGE 0 16383");
    until("their acquaintance", SOON, async || place.map(7).len() == 2).await.unwrap();
    place.write("fs:{a}:meta", "one");
    let wrote = async || place.ask(6, "SET fs:{a}:meta two").trim_end() == "OK";
    until("a write to a fresh primary", SOON, wrote).await.unwrap();

    place.cluster(4, &[]).await.assert_refusal(1, "these are two clusters");
    place.cluster(2, &[]).await.assert_refusal(1, "which PAIRS does not name");
    assert_eq!((place.map(0).len(), place.map(6).len()), (6, 2), "the two have met");
}
