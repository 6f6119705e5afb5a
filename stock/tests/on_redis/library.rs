//! The function library: it is loaded where it is missing, loading is idempotent, and several releases coexist.

use redis::cmd;
use stock::functions::{Function, LIBRARY};
use testkit::RedisCluster;

use crate::fixture::{
    TestSale, attempt, claim, client_of, eventual_claim, query_server, redis_without_replicas,
};

/// Counts the primaries that have a library of this name.
async fn primaries_with(redis: &RedisCluster, library: &str) -> usize {
    let mut found = 0;
    for primary in redis.primaries().await {
        let mut list = cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(library);
        found += query_server::<Vec<redis::Value>>(redis, primary, &list).await.len();
    }
    found
}

async fn flush_functions(redis: &RedisCluster) {
    for primary in redis.primaries().await {
        query_server::<()>(redis, primary, cmd("FUNCTION").arg("FLUSH")).await;
    }
}

#[tokio::test]
async fn missing_library_is_loaded_during_a_purchase() {
    let redis = redis_without_replicas().await;
    let sale = TestSale::on(client_of(&redis).await, &[5, 5, 5]).await;
    assert_eq!(primaries_with(&redis, &LIBRARY.name).await, 3);

    flush_functions(&redis).await;

    let ann = attempt("ann");
    let bought = claim(sale.try_buy(&ann).await);
    assert_eq!(sale.try_buy(&ann).await, stock::calls::BuyOutcome::Repeat(bought));
    assert_eq!(primaries_with(&redis, &LIBRARY.name).await, 1, "loaded where it was missed, and only there");
}

#[tokio::test]
async fn flushed_functions_lose_no_units() {
    let redis = redis_without_replicas().await;
    let sale = TestSale::on(client_of(&redis).await, &[200]).await;
    let users: Vec<String> = (0..200).map(|n| format!("user-{n}")).collect();

    let buying = async {
        for user in &users {
            eventual_claim(sale.buy(user).await);
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
async fn loading_is_idempotent_and_releases_coexist() {
    let redis = redis_without_replicas().await;
    let cluster = client_of(&redis).await;
    cluster.load_library().await.unwrap();

    let another = another_release();
    for primary in redis.primaries().await {
        query_server::<String>(&redis, primary, cmd("FUNCTION").arg("LOAD").arg(&another)).await;
    }

    let sale = TestSale::on(cluster, &[5]).await;
    eventual_claim(sale.buy("ann").await);
    let theirs = Function::Level.function().replace(digest(), "0ther0");
    let level: Vec<redis::Value> =
        sale.query(cmd("FCALL_RO").arg(theirs).arg(1).arg(&sale.shard().meta)).await;
    assert_eq!(level.len(), 2, "the other release's functions answer as well");
    assert_eq!(primaries_with(&redis, &LIBRARY.name).await, 3);
    assert_eq!(primaries_with(&redis, "flashsale_*").await, 6);
}

/// Returns the library of a release with other code. It differs only in the digest in its names.
fn another_release() -> String {
    LIBRARY.code.replace(digest(), "0ther0")
}

fn digest() -> &'static str {
    LIBRARY.name.strip_prefix("flashsale_").unwrap()
}
