//! Growing a cluster during a sale.

use std::time::{Duration, Instant};

use crate::creation::assert_nothing_to_do;
use crate::fixture::RedisFixture;
use crate::sale::Sale;

/// Time limit for adding a pair. On a machine that builds at the same time it takes twice as long as on an idle one.
const GROWTH_LIMIT: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn cluster_grows_without_a_failed_purchase() {
    // Given a sale on three pairs, and servers for a fourth.
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    let sale = Sale::open(&fixture, 100_000).await;
    for number in [6, 7] {
        fixture.start(number);
        fixture.wait_until_up(number).await;
    }

    // When the cluster grows, every purchase succeeds.
    let began = Instant::now();
    let grown = sale.sells_during("growth", fixture.cluster(4, &[])).await;
    let took = began.elapsed();
    grown.assert_ok();
    println!("growth from three to four pairs took {took:.1?}\n{}", grown.output);
    assert!(took < GROWTH_LIMIT, "growth took {took:.1?}");

    // Then slots and shards are evenly spread, and the audit is clean.
    assert_eq!(fixture.leaders(4).await, [(0, 4096), (2, 4096), (4, 4096), (6, 4096)]);
    let keys: u32 = fixture.query(6, "DBSIZE").trim_end().parse().unwrap();
    assert!(keys >= 3 * 3, "the new pair has {keys} keys: fewer than those of three shards");
    let audit = sale.assert_audit_is_clean().await;
    assert!(audit.sold > 100, "{audit:?}: too few purchases");

    // And another run changes nothing.
    let before = fixture.map(0);
    assert_nothing_to_do(&fixture.cluster(4, &[]).await);
    assert_eq!(fixture.map(0), before);
    sale.sells_during("a second afterwards", tokio::time::sleep(Duration::from_secs(1))).await;
}
