//! What an operator reads in the log of a program that is not let in; and that it goes on as soon as it is.

use std::time::Duration;

use testkit::ports::PortBlock;
use testkit::security::{make_certificates, new_password};
use testkit::{Folder, Launch, Process, RedisCluster, User, binary, until};

use crate::{security_of, shared_redis};

const SOON: Duration = Duration::from_secs(20);

/// A node that is started with these files.
struct Started {
    process: Process,
    folder: Folder,
    _ports: PortBlock,
}

fn node(redis: &RedisCluster, password: &str, ca: Option<&std::path::Path>) -> Started {
    let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let launch = Launch::new("node", binary("flashsale-node").unwrap(), folder.path())
        .env("HOST", "127.0.0.1")
        .env("PORT", ports.first())
        .env("OPS_PORT", ports.first() + 1)
        .env("REDIS_URL", redis.seeds())
        .env("REDIS_USERNAME", "node")
        .env("REDIS_PASSWORD_FILE", file.display());
    let launch = ca.into_iter().fold(launch, |launch, ca| launch.env("REDIS_CA_FILE", ca.display()));
    Started { process: launch.spawn().unwrap(), folder, _ports: ports }
}

impl Started {
    async fn says(&self, words: &str) {
        let said = async || self.log().contains(words);
        until(words, SOON, said).await.unwrap_or_else(|_| panic!("{words} is not in\n{}", self.log()));
        assert!(self.process.is_running(), "it ended:\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("node.log")).unwrap()
    }
}

#[tokio::test]
async fn a_password_that_is_not_known_yet_is_waited_for() {
    let (redis, password) = (shared_redis().await, new_password());
    let started = node(redis, &password, security_of(redis).ca_file().as_deref());

    started.says("waiting for the Redis Cluster").await;
    started.says("the login as \\\"node\\\" is refused: another password, or no such user (WRONGPASS)").await;
    assert_eq!(started.log().matches("WRONGPASS").count(), 1, "one reason is told once: {}", started.log());

    for server in redis.servers().await {
        let mut connection = redis.connection(server.addr).await.unwrap();
        let mut also = redis::cmd("ACL");
        also.arg("SETUSER").arg(User::Node.name()).arg(format!(">{password}"));
        also.exec_async(&mut connection).await.unwrap();
    }
    started.says("the list of sales cannot be read").await;
    assert!(!started.log().contains(&password), "{}", started.log());
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_named_as_the_reason() {
    let redis = shared_redis().await;
    if !security_of(redis).is_tls() {
        return println!("{} has no TLS: there is no authority", redis.version());
    }
    let strangers = Folder::temporary().unwrap();
    make_certificates(strangers.path(), "localhost").unwrap();
    let password = security_of(redis).password(User::Node).unwrap();
    let started = node(redis, &password, Some(&strangers.path().join("ca.crt")));

    started.says("its certificate is from an authority that is not trusted here").await;
    assert!(!started.log().contains(&password), "{}", started.log());
}
