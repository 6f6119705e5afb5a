//! The function library: loaded where it is missing, harmless where it is there, side by side with other releases.

use redis::cmd;
use stock::cluster::Cluster;
use stock::functions::{Function, LIBRARY};
use testkit::{ClusterOptions, RedisCluster};

use crate::stage::{TestSale, attempt, claim, claim_at_last, client_of, options};

/// Three primaries without replicas: nobody else suffers when a test throws the functions away.
async fn redis_of_its_own() -> RedisCluster {
    let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
    RedisCluster::start(options).await.unwrap()
}

/// How many primaries have a library of this name.
async fn primaries_with(redis: &RedisCluster, library: &str) -> usize {
    let mut found = 0;
    for primary in redis.primaries().await {
        let mut connection = redis.connection(primary).await.unwrap();
        let mut list = cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(library);
        found += list.query_async::<Vec<redis::Value>>(&mut connection).await.unwrap().len();
    }
    found
}

async fn flush_functions(redis: &RedisCluster) {
    for primary in redis.primaries().await {
        let mut connection = redis.connection(primary).await.unwrap();
        cmd("FUNCTION").arg("FLUSH").exec_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_buyer_does_not_notice_that_the_functions_were_missing() {
    let redis = redis_of_its_own().await;
    let sale = TestSale::on(client_of(&redis).await, &[5, 5, 5]).await;
    assert_eq!(primaries_with(&redis, &LIBRARY.name).await, 3);

    flush_functions(&redis).await;

    let ann = attempt("ann");
    let bought = claim(sale.tries(&ann).await);
    assert_eq!(sale.tries(&ann).await, stock::calls::BuyOutcome::Repeat(bought));
    assert_eq!(primaries_with(&redis, &LIBRARY.name).await, 1, "loaded where it was missed, and only there");
}

#[tokio::test]
async fn functions_that_vanish_in_the_middle_of_a_sale_cost_nobody_a_unit() {
    let redis = redis_of_its_own().await;
    let sale = TestSale::on(client_of(&redis).await, &[200]).await;
    let users: Vec<String> = (0..200).map(|n| format!("user-{n}")).collect();

    let buying = async {
        for user in &users {
            claim_at_last(sale.buys(user).await);
        }
    };
    let flushing = async {
        for _ in 0..5 {
            flush_functions(&redis).await;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::join!(buying, flushing);

    assert_eq!((sale.level().await.stock, sale.level().await.sold), (0, 200));
}

#[tokio::test]
async fn loading_twice_is_harmless_and_two_releases_live_side_by_side() {
    let redis = redis_of_its_own().await;
    let cluster = Cluster::connect(options(&redis.seeds())).await.unwrap();
    cluster.load_library().await.unwrap();
    cluster.load_library().await.unwrap();

    let another = another_release();
    for primary in redis.primaries().await {
        let mut connection = redis.connection(primary).await.unwrap();
        cmd("FUNCTION").arg("LOAD").arg(&another).exec_async(&mut connection).await.unwrap();
    }

    let sale = TestSale::on(cluster, &[5]).await;
    claim_at_last(sale.buys("ann").await);
    let theirs = Function::Level.function().replace(digest(), "0ther0");
    let level: Vec<redis::Value> = sale.ask(cmd("FCALL_RO").arg(theirs).arg(1).arg(&sale.shard().meta)).await;
    assert_eq!(level.len(), 2, "the other release's functions answer as well");
    assert_eq!(primaries_with(&redis, &LIBRARY.name).await, 3);
    assert_eq!(primaries_with(&redis, "flashsale_*").await, 6);
}

/// The library as a release with other code would load it: all that differs is the digest in its names.
fn another_release() -> String {
    LIBRARY.code.replace(digest(), "0ther0")
}

fn digest() -> &'static str {
    LIBRARY.name.strip_prefix("flashsale_").unwrap()
}
