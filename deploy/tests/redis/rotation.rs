//! Replacing passwords on running servers.

use std::process::Stdio;

use testkit::until;

use crate::fixture::{RedisFixture, TIME_LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn password_is_replaced_without_closing_connections() {
    let fixture = RedisFixture::with_cluster_of(3).await;
    let old: Vec<String> = ["admin", "replica", "node"].map(|user| fixture.password(user)).into();
    let new = r#"new "one" \ of mine"#;
    let set = |lines: &dyn Fn(usize) -> Vec<String>| {
        for (i, user) in ["admin", "replica", "node"].into_iter().enumerate() {
            let lines = lines(i);
            fixture.write_passwords(user, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        }
    };
    let rotate = async || fixture.finish(fixture.rotation(3)).await.assert_ok();
    let accepts =
        |password: &str| fixture.query_as("node", password, 1, "INFO replication").contains("role:slave");

    // Given a client that is connected with the old password, and connected replicas.
    let mut connected = fixture.client("node", &old[2], 1);
    let mut connected = connected.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let clients =
        || fixture.query(1, "CLIENT LIST").lines().filter(|line| line.contains("user=node")).count();
    until("a connection", TIME_LIMIT, async || clients() == 1).await.unwrap();
    let replica_connections = || {
        fixture
            .query(0, "CLIENT LIST")
            .lines()
            .filter(|line| line.contains("user=replica"))
            .map(id_of)
            .collect::<Vec<_>>()
    };
    let connection = replica_connections();
    assert_eq!(connection.len(), 1);

    set(&|i| vec![old[i].clone(), new.to_owned()]);
    rotate().await;
    assert!(accepts(&old[2]) && accepts(new), "both are valid");

    set(&|i| vec![new.to_owned(), old[i].clone()]);
    rotate().await;
    assert!(accepts(&old[2]) && accepts(new), "both are still valid");

    set(&|_| vec![new.to_owned()]);
    rotate().await;
    assert!(!accepts(&old[2]) && accepts(new), "only the new one is valid");

    // Then existing connections are still open, and new ones can log in, including that of a replica to its primary.
    assert_eq!((clients(), replica_connections()), (1, connection), "a connection was closed");
    connected.kill().unwrap();
    connected.wait().unwrap();
    fixture.query(0, "CLIENT KILL TYPE replica");
    let linked = async || {
        fixture.query(1, "INFO replication").contains("master_link_status:up")
            && replica_connections().len() == 1
    };
    until("the replica's return", TIME_LIMIT, linked).await.unwrap();
    fixture.cluster(3, &[]).await.assert_ok();
}

/// Returns the id of a connection in `CLIENT LIST`: `id=7 addr=…`.
fn id_of(line: &str) -> String {
    line.split(' ').next().unwrap().to_owned()
}
