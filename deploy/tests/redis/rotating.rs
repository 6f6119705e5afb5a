//! Passwords are replaced on servers that run.

use std::process::Stdio;

use testkit::until;

use crate::stage::{RedisFixture, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_replaced_in_three_steps_and_nobody_is_hung_up_on() {
    let place = RedisFixture::with_cluster_of(3).await;
    let old: Vec<String> = ["admin", "replica", "node"].map(|user| place.password(user)).into();
    let new = r#"new "one" \ of mine"#;
    let set = |lines: &dyn Fn(usize) -> Vec<String>| {
        for (i, user) in ["admin", "replica", "node"].into_iter().enumerate() {
            let lines = lines(i);
            place.write_passwords(user, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        }
    };
    let rotate = async || place.finish(place.script("rotate.sh", 3)).await.assert_ok();
    let lets_in =
        |password: &str| place.ask_as("node", password, 1, "INFO replication").contains("role:slave");

    // Given somebody who is connected with the old password, and replicas that are.
    let mut connected = place.client("node", &old[2], 1);
    let mut connected = connected.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let clients = || place.ask(1, "CLIENT LIST").lines().filter(|line| line.contains("user=node")).count();
    until("a connection", SOON, async || clients() == 1).await.unwrap();
    let links = || {
        place
            .ask(0, "CLIENT LIST")
            .lines()
            .filter(|line| line.contains("user=replica"))
            .map(name_of)
            .collect::<Vec<_>>()
    };
    let link = links();
    assert_eq!(link.len(), 1);

    set(&|i| vec![old[i].clone(), new.to_owned()]);
    rotate().await;
    assert!(lets_in(&old[2]) && lets_in(new), "both are good");

    set(&|i| vec![new.to_owned(), old[i].clone()]);
    rotate().await;
    assert!(lets_in(&old[2]) && lets_in(new), "both are still good");

    set(&|_| vec![new.to_owned()]);
    rotate().await;
    assert!(!lets_in(&old[2]) && lets_in(new), "only the new one is good");

    // Then whoever was connected still is, and whoever connects anew finds its way: a replica at its primary too.
    assert_eq!((clients(), links()), (1, link), "somebody was hung up on");
    connected.kill().unwrap();
    connected.wait().unwrap();
    place.ask(0, "CLIENT KILL TYPE replica");
    let linked =
        async || place.ask(1, "INFO replication").contains("master_link_status:up") && links().len() == 1;
    until("the replica's return", SOON, linked).await.unwrap();
    place.cluster(3, &[]).await.assert_ok();
}

/// The id of a connection in `CLIENT LIST`: `id=7 addr=…`.
fn name_of(line: &str) -> String {
    line.split(' ').next().unwrap().to_owned()
}
