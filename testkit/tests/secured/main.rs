//! Access to a secured cluster, and the permissions of each user.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

mod access;
mod certificates;
mod exporter;
mod programs;
mod users;

use testkit::{ClusterOptions, RedisCluster, Security};
use tokio::sync::OnceCell;

/// Returns the cluster that all tests share. It ends with the test program. The next run empties its folder.
async fn shared_redis() -> &'static RedisCluster {
    static SHARED: OnceCell<RedisCluster> = OnceCell::const_new();
    let start = async || {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("secured");
        let options = ClusterOptions { secured: true, folder: Some(folder), ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        let spoken = if redis.security().unwrap().is_tls() { "TLS and users" } else { "users without TLS" };
        println!("{}: {spoken}", redis.version());
        redis
    };
    SHARED.get_or_init(start).await
}

fn security_of(redis: &RedisCluster) -> &Security {
    redis.security().expect("the cluster is secured")
}
