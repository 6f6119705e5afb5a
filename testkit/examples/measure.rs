//! scratch
use std::time::Instant;
#[tokio::main]
async fn main() {
    for _ in 0..3 {
        let t = Instant::now();
        let c = testkit::RedisCluster::start(testkit::ClusterOptions::default()).await.unwrap();
        let up = t.elapsed();
        c.stop().await.unwrap();
        println!("{up:?} stop {:?}", t.elapsed()-up);
    }
}
