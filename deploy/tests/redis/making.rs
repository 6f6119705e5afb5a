//! A cluster is made, and whatever is whole is left alone.

use crate::stage::{Outcome, RedisFixture};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_once_and_then_left_alone_whoever_leads() {
    // Given a cluster of three pairs with a key.
    let mut place = RedisFixture::with_cluster_of(3).await;
    assert_eq!(place.leaders(3).await, [(0, 5461), (2, 5461), (4, 5462)]);
    place.write("fs:{a}:meta", "kept");

    // When it is run again, nothing changes.
    let before = place.map(0);
    assert_nothing_to_do(&place.cluster(3, &[]).await);
    assert_eq!(place.map(0), before);

    // Nor where a replica leads.
    place.fail_over_to(3).await;
    place.cluster(3, &[]).await.assert_ok();
    assert_eq!(place.leaders(3).await, [(0, 5461), (3, 5461), (4, 5462)]);
    let before = place.map(0);
    assert_nothing_to_do(&place.cluster(3, &[]).await);
    assert_eq!(place.map(0), before);

    // Nor where all servers were away at once.
    let ids: Vec<String> = (0..6).map(|number| place.id(number)).collect();
    (0..6).for_each(|number| place.kill(number));
    place.start_all(3).await;
    place.cluster(3, &[]).await.assert_ok();
    assert_eq!((0..6).map(|number| place.id(number)).collect::<Vec<_>>(), ids);
    let slots: Vec<u32> = place.leaders(3).await.iter().map(|(_, slots)| *slots).collect();
    assert_eq!(slots, [5461, 5461, 5462]);
    assert_eq!(place.read("fs:{a}:meta"), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_anywhere_is_finished_by_the_next() {
    let mut place = RedisFixture::new();
    place.start_all(3).await;
    // The whole of it takes a second or two: each run gets further than the one before.
    for ms in [100, 200, 300, 450, 600] {
        let run = place.cluster_launch(3).spawn().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        run.kill();
    }
    place.cluster(3, &[]).await.assert_ok();
    assert_eq!(place.leaders(3).await, [(0, 5461), (2, 5461), (4, 5462)]);
    assert_nothing_to_do(&place.cluster(3, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_everything_is_joined_again() {
    let mut place = RedisFixture::with_cluster_of(3).await;
    place.write("fs:{a}:meta", "kept");
    let former = place.id(3);
    place.lose(3);
    place.start(3);
    place.wait_until_up(3).await;

    place.cluster(3, &[]).await.assert_ok();

    let copies = place.map(3).into_iter().find(|line| line.contains("myself")).unwrap();
    assert!(copies.contains(&place.id(2)), "{copies}");
    for number in 0..6 {
        assert!(!place.ask(number, "CLUSTER NODES").contains(&former), "{number} still knows it as it was");
    }
    assert_nothing_to_do(&place.cluster(3, &[]).await);
}

pub(crate) fn assert_nothing_to_do(run: &Outcome) {
    run.assert_ok();
    assert_eq!(run.said, "cluster.sh: nothing to do\n");
}
