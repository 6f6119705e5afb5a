//! Creating a cluster. A healthy cluster is not changed.

use crate::fixture::{Outcome, RedisFixture};

#[tokio::test(flavor = "multi_thread")]
async fn healthy_cluster_is_not_changed() {
    // Given a cluster of three pairs with a key.
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    assert_eq!(fixture.leaders(3).await, [(0, 5461), (2, 5461), (4, 5462)]);
    fixture.write("fs:{a}:meta", "kept");

    // When the command runs again, nothing changes.
    let before = fixture.map(0);
    assert_nothing_to_do(&fixture.cluster(3, &[]).await);
    assert_eq!(fixture.map(0), before);

    // Nor when a replica was promoted.
    fixture.fail_over_to(3).await;
    fixture.cluster(3, &[]).await.assert_ok();
    assert_eq!(fixture.leaders(3).await, [(0, 5461), (3, 5461), (4, 5462)]);
    let before = fixture.map(0);
    assert_nothing_to_do(&fixture.cluster(3, &[]).await);
    assert_eq!(fixture.map(0), before);

    // Nor after all servers were down at once.
    let ids: Vec<String> = (0..6).map(|number| fixture.id(number)).collect();
    (0..6).for_each(|number| fixture.kill(number));
    fixture.start_all(3).await;
    fixture.cluster(3, &[]).await.assert_ok();
    assert_eq!((0..6).map(|number| fixture.id(number)).collect::<Vec<_>>(), ids);
    let slots: Vec<u32> = fixture.leaders(3).await.iter().map(|(_, slots)| *slots).collect();
    assert_eq!(slots, [5461, 5461, 5462]);
    assert_eq!(fixture.read("fs:{a}:meta"), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn next_run_finishes_creation_that_was_killed() {
    let mut fixture = RedisFixture::new();
    fixture.start_all(3).await;
    // A complete run takes a second or two. Each of these runs gets further than the one before.
    for ms in [100, 200, 300, 450, 600] {
        let run = fixture.cluster_launch(3).spawn().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        run.kill();
    }
    fixture.cluster(3, &[]).await.assert_ok();
    assert_eq!(fixture.leaders(3).await, [(0, 5461), (2, 5461), (4, 5462)]);
    assert_nothing_to_do(&fixture.cluster(3, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_lost_its_data_joins_again() {
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    fixture.write("fs:{a}:meta", "kept");
    let former_id = fixture.id(3);
    fixture.lose_data(3);
    fixture.start(3);
    fixture.wait_until_up(3).await;

    fixture.cluster(3, &[]).await.assert_ok();

    let copies = fixture.map(3).into_iter().find(|line| line.contains("myself")).unwrap();
    assert!(copies.contains(&fixture.id(2)), "{copies}");
    for number in 0..6 {
        assert!(
            !fixture.query(number, "CLUSTER NODES").contains(&former_id),
            "{number} still knows the former id"
        );
    }
    assert_nothing_to_do(&fixture.cluster(3, &[]).await);
}

pub(crate) fn assert_nothing_to_do(run: &Outcome) {
    run.assert_ok();
    assert_eq!(run.output, "nothing to do\n");
}
