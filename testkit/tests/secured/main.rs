//! Who gets in to a secured cluster, and what each may do there.

#![expect(clippy::unwrap_used, reason = "what a story cannot go on without fails it")]

mod certificates;
mod doors;
mod exporter;
mod programs;
mod users;

use testkit::{ClusterOptions, RedisCluster, Security};
use tokio::sync::OnceCell;

/// The cluster that tests share. It ends with the test program; its folder is emptied by the next.
async fn shared_redis() -> &'static RedisCluster {
    static SHARED: OnceCell<RedisCluster> = OnceCell::const_new();
    let start = async || {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("secured");
        let options = ClusterOptions { secured: true, folder: Some(folder), ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        let spoken = if redis.security().unwrap().is_tls() { "TLS and users" } else { "users alone: no TLS" };
        println!("{}: {spoken}", redis.version());
        redis
    };
    SHARED.get_or_init(start).await
}

fn security_of(redis: &RedisCluster) -> &Security {
    redis.security().expect("it is secured")
}
