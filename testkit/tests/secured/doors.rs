//! Nobody gets in without TLS, by a certificate of somebody else, or with another password.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use redis::{ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use stock::connection::{ConnectOptions, Connection};
use stock::topology::Address;
use testkit::security::{make_certificates, new_password};
use testkit::{Folder, RedisCluster, User};

use crate::{security_of, shared_redis};

/// What is in the way of whoever connects like this, or nothing.
async fn reason(info: ConnectionInfo) -> Option<String> {
    let address = ConnectOptions::new(vec![info.clone()]).addresses().remove(0);
    reason_at(info, &address).await
}

async fn reason_at(info: ConnectionInfo, address: &Address) -> Option<String> {
    let opened = Connection::open(&ConnectOptions::new(vec![info]), address).await;
    opened.err().map(|unconnected| unconnected.reason)
}

async fn a_server() -> (&'static RedisCluster, SocketAddr) {
    let redis = shared_redis().await;
    (redis, redis.primaries().await[0])
}

#[tokio::test]
async fn the_password_is_the_user_s_own() {
    let (redis, server) = a_server().await;
    let info = security_of(redis).login(server, User::Node).unwrap();
    assert_eq!(reason(info.clone()).await, None);
    let others = security_of(redis).password(User::Coordinator).unwrap();
    for (user, password) in [("node", "guess"), ("node", &others), ("nobody", &others), ("default", "")] {
        let login = info.redis_settings().clone().set_username(user).set_password(password);
        let told = reason(info.clone().set_redis_settings(login)).await.unwrap();
        let expected =
            format!("the login as {user:?} is refused: another password, or no such user (WRONGPASS)");
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_its_authority_and_its_name() {
    let (redis, server) = a_server().await;
    if !security_of(redis).is_tls() {
        return println!("{} has no TLS: there are no certificates to ask for", redis.version());
    }
    let info = security_of(redis).login(server, User::Node).unwrap();

    let strangers = Folder::temporary().unwrap();
    make_certificates(strangers.path(), "localhost").unwrap();
    let pem = std::fs::read(strangers.path().join("ca.crt")).unwrap();
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    let by_strangers =
        redis::Client::build_with_tls(info.clone(), certificates).unwrap().get_connection_info().clone();
    let told = reason(by_strangers).await.unwrap();
    assert_eq!(told, "its certificate is from an authority that is not trusted here");

    // The very same server by its address: the certificate is not for that.
    let address = Address { host: "127.0.0.1".into(), port: server.port() };
    let told = reason_at(info, &address).await.unwrap();
    assert!(told.contains("not valid for name \"127.0.0.1\""), "{told}");
}

#[tokio::test]
async fn without_tls_nobody_is_answered() {
    let (redis, server) = a_server().await;
    if !security_of(redis).is_tls() {
        return println!("{} has no TLS to insist on", redis.version());
    }
    let password = security_of(redis).password(User::Node).unwrap();
    let plain = format!("redis://node:{password}@{server}").into_connection_info().unwrap();
    let told = reason(plain).await.expect("a server of TLS answered without it");
    println!("without TLS: {told}");
    assert!(!told.contains(&password), "{told}");
}

/// Whoever speaks to the bus can vote on primaries. A password is never asked for there, so the certificate is.
#[tokio::test]
async fn the_bus_is_for_those_who_have_a_certificate() {
    let (redis, server) = a_server().await;
    let Some(ca) = security_of(redis).ca_file() else {
        return println!("{} has no TLS: its bus asks nobody", redis.version());
    };
    let bus = redis.bus_port_of(server);
    let with_certificate = ["-cert", "tls.crt", "-key", "tls.key"];
    let folder = ca.parent().unwrap().to_owned();
    let refused = |certificate: &[&str]| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-ign_eof", "-CAfile", "ca.crt", "-connect", &format!("127.0.0.1:{bus}")]);
        client.args(certificate).current_dir(&folder);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().unwrap();
        // What is no message of the bus ends the connection of whoever is let in.
        client.stdin.take().unwrap().write_all(&[b'x'; 4_096]).ok();
        let said = client.wait_with_output().unwrap();
        String::from_utf8_lossy(&said.stderr).contains("certificate required")
    };
    assert!(refused(&[]), "the bus let in somebody without a certificate");
    assert!(!refused(&with_certificate), "the bus refused a certificate of the authority");
}

#[tokio::test]
async fn what_is_shown_of_options_holds_no_password() {
    let (redis, server) = a_server().await;
    let shown =
        format!("{:?}", ConnectOptions::new(vec![security_of(redis).login(server, User::Node).unwrap()]));
    let password = security_of(redis).password(User::Node).unwrap();
    assert!(shown.contains("node") && !shown.contains(&password), "{shown}");
    assert_ne!(new_password(), new_password());
}
