//! A server hands over before it is stopped, and is not stopped while it alone has what its pair has.

use std::time::{Duration, Instant};

use testkit::until;

use crate::sale::Sale;
use crate::stage::{RedisFixture, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_hands_over_and_comes_back_as_a_replica() {
    // Given a sale that sells.
    let mut place = RedisFixture::with_cluster_of(3).await;
    place.write("fs:{a}:meta", "kept");
    let sale = Sale::open(&place, 100_000).await;

    // When each primary hands over, no purchase fails.
    for (primary, replica) in [(0, 1), (2, 3), (4, 5)] {
        let began = Instant::now();
        let said = sale.sells_during("a hand-over", place.hand_over(primary)).await;
        said.assert_ok();
        assert_eq!(said.said, format!("handover.sh: 127.0.0.1:{} leads now\n", place.port(replica)));
        println!("handed over in {:.1?}", began.elapsed());
        assert!(place.leads(replica) && !place.leads(primary));

        // And it has nothing more to hand over, stops, and comes back as a replica with all there is.
        let again = place.hand_over(primary).await;
        assert_eq!(again.said, "handover.sh: this server is a replica: there is nothing to hand over\n");
        place.process(primary).stop(Duration::from_secs(10)).await.unwrap();
        place.start(primary);
        place.wait_until_up(primary).await;
        place.cluster(3, &[]).await.assert_ok();
        assert_eq!(place.ask(primary, "DBSIZE"), place.ask(replica, "DBSIZE"));
    }
    let leading: Vec<u16> = place.leaders(3).await.iter().map(|(number, _)| *number).collect();
    assert_eq!(leading, [1, 3, 5]);
    assert_eq!(place.read("fs:{a}:meta"), "kept");
    sale.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_over_to_the_dead_or_the_frozen_and_all_is_said_in_one_line() {
    let mut place = RedisFixture::with_cluster_of(3).await;
    let hands_nothing_over = async |place: &RedisFixture, words: &str| {
        let began = Instant::now();
        let outcome = place.hand_over(0).await;
        outcome.assert_ok();
        assert!(outcome.said.contains(words) && outcome.said.lines().count() == 1, "{}", outcome.said);
        assert!(began.elapsed() < Duration::from_secs(8), "it took {:.1?}", began.elapsed());
    };
    let no_replica = "no replica has this server's data: nothing is handed over";
    place.process(1).freeze();
    hands_nothing_over(&place, no_replica).await;
    place.kill(1);
    hands_nothing_over(&place, no_replica).await;
    assert!(place.leads(0));

    // Nor a server that serves nothing; and one that is gone or does not let us in is no reason to fail.
    place.start(6);
    place.wait_until_up(6).await;
    let outcome = place.hand_over(6).await;
    assert_eq!((outcome.code, outcome.said.contains("serves nothing")), (Some(0), true), "{}", outcome.said);
    place.write_passwords("admin", &["another"]);
    hands_nothing_over(&place, "this server does not tell").await;
    place.kill(0);
    hands_nothing_over(&place, "this server does not tell").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_primary_s_data_is_not_ready() {
    let mut place = RedisFixture::with_cluster_of(3).await;
    for number in [0, 1] {
        place.ready(number).await.assert_ok();
    }

    // When a primary dies and there is no majority to replace it.
    [2, 4].into_iter().for_each(|primary| place.process(primary).freeze());
    place.kill(0);
    place.ready(1).await.assert_refusal(1, "it has not its primary's data yet");
    place.ready(0).await.assert_refusal(1, "it does not answer");

    // Whoever takes over is.
    [2, 4].into_iter().for_each(|primary| place.process(primary).thaw());
    until("a successor", SOON, async || place.ready(1).await.code == Some(0)).await.unwrap();
    assert!(place.leads(1));
}
