//! Replacing passwords on running servers.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use testkit::security::make_certificates;
use testkit::until;

use crate::fixture::{RedisFixture, TIME_LIMIT};
use crate::sale::Sale;

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

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_authority_are_replaced_without_a_restart() {
    // Given a sale on servers with TLS, and a certificate of another authority.
    let fixture = RedisFixture::with_cluster_of(3).await;
    if !fixture.is_tls() {
        println!("the server program has no TLS");
        return;
    }
    let sale = Sale::open(&fixture, 1_000_000).await;
    let (tls, other) = (fixture.certificates(), fixture.folder.subfolder("other").unwrap());
    make_certificates(&other, "localhost").unwrap();
    let [old_ca, new_ca] = [&tls, &other].map(|folder| fs::read(folder.join("ca.crt")).unwrap());
    let old = fixture.folder.path().join("old.crt");
    fs::write(&old, &old_ca).unwrap();
    // Replaces a file in one step, as a mounted Secret changes.
    let replace = |name: &str, content: &[u8]| {
        let new = tls.join("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, tls.join(name)).unwrap();
    };
    let rotate = async || fixture.finish(fixture.rotation(3)).await.assert_ok();

    // When servers and clients trust both, and then the servers get the new certificate, no purchase fails.
    sale.sells_during("new certificates", async {
        replace("ca.crt", &[&*old_ca, &*new_ca].concat());
        rotate().await;
        for file in ["tls.crt", "tls.key"] {
            replace(file, &fs::read(other.join(file)).unwrap());
        }
        rotate().await;
    })
    .await;

    // Then the servers present the new certificate, and programs that are still running verify it.
    replace("ca.crt", &new_ca);
    for number in 0..6 {
        let trusting = |ca: &Path| {
            let mut cli = fixture.client("admin", &fixture.password("admin"), number);
            String::from_utf8(cli.arg("--cacert").arg(ca).arg("PING").output().unwrap().stdout).unwrap()
        };
        assert_eq!(trusting(&tls.join("ca.crt")).trim_end(), "PONG", "server {number}");
        assert_ne!(trusting(&old).trim_end(), "PONG", "server {number} presents the old certificate");
    }
    for number in 0..6 {
        fixture.query(number, "CLIENT KILL TYPE normal");
        fixture.query(number, "CLIENT KILL TYPE replica");
    }
    let sells_again = async || sale.sells_to_all(fixture.cluster(3, &["check"])).await;
    until("purchases over new connections", TIME_LIMIT, sells_again).await.unwrap();
    sale.assert_audit_is_clean().await;
}

/// Returns the id of a connection in `CLIENT LIST`: `id=7 addr=…`.
fn id_of(line: &str) -> String {
    line.split(' ').next().unwrap().to_owned()
}
