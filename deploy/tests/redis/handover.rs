//! A server hands over before it is stopped, and is not stopped while it has the only copy of its pair's data.

use std::time::{Duration, Instant};

use testkit::until;

use crate::fixture::{RedisFixture, TIME_LIMIT};
use crate::sale::Sale;

#[tokio::test(flavor = "multi_thread")]
async fn primary_hands_over_and_returns_as_replica() {
    // Given an open sale.
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    fixture.write("fs:{a}:meta", "kept");
    let sale = Sale::open(&fixture, 100_000).await;

    // When each primary hands over, no purchase fails.
    for (primary, replica) in [(0, 1), (2, 3), (4, 5)] {
        let began = Instant::now();
        let outcome = sale.sells_during("a handover", fixture.hand_over(primary)).await;
        outcome.assert_ok();
        assert_eq!(
            outcome.output,
            format!("handover.sh: 127.0.0.1:{} is the primary now\n", fixture.port(replica))
        );
        println!("handed over in {:.1?}", began.elapsed());
        assert!(fixture.leads(replica) && !fixture.leads(primary));

        // And then it has nothing to hand over, stops, and comes back as a replica with all data.
        let again = fixture.hand_over(primary).await;
        assert_eq!(again.output, "handover.sh: this server is a replica: there is nothing to hand over\n");
        fixture.process(primary).stop(Duration::from_secs(10)).await.unwrap();
        fixture.start(primary);
        fixture.wait_until_up(primary).await;
        fixture.cluster(3, &[]).await.assert_ok();
        assert_eq!(fixture.query(primary, "DBSIZE"), fixture.query(replica, "DBSIZE"));
    }
    let leading: Vec<u16> = fixture.leaders(3).await.iter().map(|(number, _)| *number).collect();
    assert_eq!(leading, [1, 3, 5]);
    assert_eq!(fixture.read("fs:{a}:meta"), "kept");
    sale.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handover_skips_failed_replicas_in_one_line() {
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    let assert_nothing_handed_over = async |fixture: &RedisFixture, words: &str| {
        let began = Instant::now();
        let outcome = fixture.hand_over(0).await;
        outcome.assert_ok();
        assert!(outcome.output.contains(words) && outcome.output.lines().count() == 1, "{}", outcome.output);
        assert!(began.elapsed() < Duration::from_secs(8), "it took {:.1?}", began.elapsed());
    };
    let no_replica = "no replica has this server's data: nothing is handed over";
    fixture.process(1).freeze();
    assert_nothing_handed_over(&fixture, no_replica).await;
    fixture.kill(1);
    assert_nothing_handed_over(&fixture, no_replica).await;
    assert!(fixture.leads(0));

    // A server that never joined hands nothing over. A server that is down or refuses the login is not an error.
    fixture.start(6);
    fixture.wait_until_up(6).await;
    let outcome = fixture.hand_over(6).await;
    assert_eq!(
        (outcome.code, outcome.output.contains("has joined no cluster")),
        (Some(0), true),
        "{}",
        outcome.output
    );
    let password = fixture.password("replica");
    fixture.write_passwords("replica", &["another"]);
    assert_nothing_handed_over(&fixture, "or has another password").await;
    fixture.write_passwords("replica", &[&password]);
    fixture.kill(0);
    assert_nothing_handed_over(&fixture, "this server does not answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_without_data_is_not_ready() {
    // Given servers that are not ready before they have joined a cluster.
    let mut fixture = RedisFixture::new();
    fixture.start_all(3).await;
    fixture.ready(0).await.assert_refusal(1, "it has joined no cluster");
    fixture.cluster(3, &[]).await.assert_ok();
    for number in [0, 1] {
        fixture.ready(number).await.assert_ok();
    }

    // When a primary fails, and there is no majority to replace it.
    [2, 4].into_iter().for_each(|primary| fixture.process(primary).freeze());
    fixture.kill(0);
    fixture.ready(1).await.assert_refusal(1, "it does not have its primary's data yet");
    fixture.ready(0).await.assert_refusal(1, "it does not answer");

    // The promoted replica is ready.
    [2, 4].into_iter().for_each(|primary| fixture.process(primary).thaw());
    until("a successor", TIME_LIMIT, async || fixture.ready(1).await.code == Some(0)).await.unwrap();
    assert!(fixture.leads(1));
}
