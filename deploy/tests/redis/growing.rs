//! A cluster grows while a sale sells on it.

use std::time::{Duration, Instant};

use crate::making::assert_nothing_to_do;
use crate::sale::Sale;
use crate::stage::RedisFixture;

/// An operator who adds a pair looks on; on a machine that builds beside it, it takes twice what it takes alone.
const GROWTH_LIMIT: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_while_it_sells_and_no_purchase_fails() {
    // Given a sale on three pairs, and servers of a fourth.
    let mut place = RedisFixture::with_cluster_of(3).await;
    let sale = Sale::open(&place, 100_000).await;
    for number in [6, 7] {
        place.start(number);
        place.wait_until_up(number).await;
    }

    // When the cluster grows, everybody who comes meanwhile gets what they came for.
    let began = Instant::now();
    let grown = sale.sells_during("growth", place.cluster(4, &[])).await;
    let took = began.elapsed();
    grown.assert_ok();
    println!("growth from three to four pairs took {took:.1?}\n{}", grown.said);
    assert!(took < GROWTH_LIMIT, "growth took {took:.1?}");

    // Then slots and shards are evenly spread, and the books agree.
    assert_eq!(place.leaders(4).await, [(0, 4096), (2, 4096), (4, 4096), (6, 4096)]);
    let keys: u32 = place.ask(6, "DBSIZE").trim_end().parse().unwrap();
    assert!(keys >= 3 * 3, "the new pair has {keys} keys: fewer than those of three shards");
    let audit = sale.assert_audit_is_clean().await;
    assert!(audit.sold > 100, "{audit:?}: there was hardly a crowd");

    // And it is left alone from now on.
    let before = place.map(0);
    assert_nothing_to_do(&place.cluster(4, &[]).await);
    assert_eq!(place.map(0), before);
    sale.sells_during("a second afterwards", tokio::time::sleep(Duration::from_secs(1))).await;
}
