//! A node whose login is rejected logs the reason, and continues as soon as the login is accepted.

use std::time::Duration;

use testkit::ports::PortBlock;
use testkit::security::{make_certificates, new_password};
use testkit::{Folder, Launch, Process, RedisCluster, User, binary, until};

use crate::{security_of, shared_redis};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A running node with its own folder and ports.
struct RunningNode {
    process: Process,
    folder: Folder,
    _ports: PortBlock,
}

fn node(redis: &RedisCluster, password: &str, ca: Option<&std::path::Path>) -> RunningNode {
    let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let launch = Launch::new("node", binary("flashsale-node").unwrap(), folder.path())
        .env("HOST", "127.0.0.1")
        .env("PORT", ports.first())
        .env("OPS_PORT", ports.first() + 1)
        .env("REDIS_URL", redis.seeds())
        .env("AUTH", "none")
        .env("REDIS_USERNAME", "node")
        .env("REDIS_PASSWORD_FILE", file.display());
    let launch = ca.into_iter().fold(launch, |launch, ca| launch.env("REDIS_CA_FILE", ca.display()));
    RunningNode { process: launch.spawn().unwrap(), folder, _ports: ports }
}

impl RunningNode {
    async fn wait_for_log(&self, text: &str) {
        let logged = async || self.log().contains(text);
        until(text, TIMEOUT, logged).await.unwrap_or_else(|_| panic!("{text} is not in\n{}", self.log()));
        assert!(self.process.is_running(), "the node ended:\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("node.log")).unwrap()
    }
}

#[tokio::test]
async fn node_waits_until_its_password_is_accepted() {
    let (redis, password) = (shared_redis().await, new_password());
    let node = node(redis, &password, security_of(redis).ca_file().as_deref());

    node.wait_for_log("waiting for the Redis Cluster").await;
    node.wait_for_log("the login as \\\"node\\\" is refused: another password, or no such user (WRONGPASS)")
        .await;
    assert_eq!(node.log().matches("WRONGPASS").count(), 1, "the reason is logged once: {}", node.log());

    for server in redis.servers().await {
        let mut connection = redis.connection(server.addr).await.unwrap();
        let mut add_password = redis::cmd("ACL");
        add_password.arg("SETUSER").arg(User::Node.name()).arg(format!(">{password}"));
        add_password.exec_async(&mut connection).await.unwrap();
    }
    node.wait_for_log("the list of sales cannot be read").await;
    assert!(!node.log().contains(&password), "{}", node.log());
}

#[tokio::test]
async fn node_logs_an_untrusted_authority() {
    let redis = shared_redis().await;
    if !security_of(redis).is_tls() {
        return println!("{} has no TLS: there is no authority", redis.version());
    }
    let other_authority = Folder::temporary().unwrap();
    make_certificates(other_authority.path(), "localhost").unwrap();
    let password = security_of(redis).password(User::Node).unwrap();
    let node = node(redis, &password, Some(&other_authority.path().join("ca.crt")));

    node.wait_for_log("its certificate is from an authority that is not trusted here").await;
    assert!(!node.log().contains(&password), "{}", node.log());
}
