//! Connections without TLS, with a certificate of another authority, or with a wrong password are rejected.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use redis::{ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use rediscluster::{Address, ConnectOptions, Connection};
use testkit::security::{make_certificates, new_password};
use testkit::{Folder, RedisCluster, User};

use crate::{security_of, shared_redis};

/// Returns the reason why a connection with these settings fails, or `None` when it succeeds.
async fn connect_error(info: ConnectionInfo) -> Option<String> {
    let address = ConnectOptions::new(vec![info.clone()]).addresses().remove(0);
    connect_error_at(info, &address).await
}

async fn connect_error_at(info: ConnectionInfo, address: &Address) -> Option<String> {
    let opened = Connection::open(&ConnectOptions::new(vec![info]), address).await;
    opened.err().map(|unconnected| unconnected.reason)
}

async fn secured_server() -> (&'static RedisCluster, SocketAddr) {
    let redis = shared_redis().await;
    (redis, redis.primaries().await[0])
}

#[tokio::test]
async fn login_needs_the_users_own_password() {
    let (redis, server) = secured_server().await;
    let info = security_of(redis).login(server, User::Node).unwrap();
    assert_eq!(connect_error(info.clone()).await, None);
    let other_password = security_of(redis).password(User::Coordinator).unwrap();
    for (user, password) in
        [("node", "guess"), ("node", &other_password), ("nobody", &other_password), ("default", "")]
    {
        let login = info.redis_settings().clone().set_username(user).set_password(password);
        let error = connect_error(info.clone().set_redis_settings(login)).await.unwrap();
        let expected =
            format!("the login as {user:?} is refused: another password, or no such user (WRONGPASS)");
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn certificate_authority_and_name_are_verified() {
    let (redis, server) = secured_server().await;
    if !security_of(redis).is_tls() {
        return println!("{} has no TLS: there are no certificates", redis.version());
    }
    let info = security_of(redis).login(server, User::Node).unwrap();

    let other_authority = Folder::temporary().unwrap();
    make_certificates(other_authority.path(), "localhost").unwrap();
    let pem = std::fs::read(other_authority.path().join("ca.crt")).unwrap();
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    let with_other_authority =
        redis::Client::build_with_tls(info.clone(), certificates).unwrap().get_connection_info().clone();
    let error = connect_error(with_other_authority).await.unwrap();
    assert_eq!(error, "its certificate is from an authority that is not trusted here");

    // The same server by its address: the certificate is not valid for that.
    let address = Address { host: "127.0.0.1".into(), port: server.port() };
    let error = connect_error_at(info, &address).await.unwrap();
    assert!(error.contains("not valid for name \"127.0.0.1\""), "{error}");
}

#[tokio::test]
async fn server_with_tls_rejects_plain_connections() {
    let (redis, server) = secured_server().await;
    if !security_of(redis).is_tls() {
        return println!("{} has no TLS", redis.version());
    }
    let password = security_of(redis).password(User::Node).unwrap();
    let plain = format!("redis://node:{password}@{server}").into_connection_info().unwrap();
    let error = connect_error(plain).await.expect("a server with TLS accepted a plain connection");
    println!("without TLS: {error}");
    assert!(!error.contains(&password), "{error}");
}

/// A peer on the bus can vote on primaries. The bus has no passwords, so it must verify certificates.
#[tokio::test]
async fn cluster_bus_requires_a_certificate() {
    let (redis, server) = secured_server().await;
    let Some(ca) = security_of(redis).ca_file() else {
        return println!("{} has no TLS: its bus has no authentication", redis.version());
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
        // Bytes that are no bus message end the connection of an accepted peer.
        client.stdin.take().unwrap().write_all(&[b'x'; 4_096]).ok();
        let output = client.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stderr).contains("certificate required")
    };
    assert!(refused(&[]), "the bus accepted a peer without a certificate");
    assert!(!refused(&with_certificate), "the bus refused a valid certificate");
}

#[tokio::test]
async fn debug_output_of_options_contains_no_password() {
    let (redis, server) = secured_server().await;
    let shown =
        format!("{:?}", ConnectOptions::new(vec![security_of(redis).login(server, User::Node).unwrap()]));
    let password = security_of(redis).password(User::Node).unwrap();
    assert!(shown.contains("node") && !shown.contains(&password), "{shown}");
    assert_ne!(new_password(), new_password());
}
