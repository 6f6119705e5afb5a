//! Fixtures: a cluster, coordinators, sales, a buyer.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coordinator::coordinator::{Coordinator, Timing, read_options};
use coordinator::new_sale::NewSale;
use redis::IntoConnectionInfo;
use rediscluster::{CallError, Cluster, ConnectOptions};
use service::settings::TimeSetting;
use stock::calls::{Attempt, Buy, BuyOutcome, Level};
use stock::functions::LIBRARY;
use stock::ids::{OrderId, SaleId, UserId, UserIdKind};
use stock::sale::Product;
use testkit::RedisCluster;

/// Deadline for everything that a coordinator does in the background, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Timing of the coordinators in these tests.
pub(crate) const TIMING: Timing = Timing {
    snapshot_period: Duration::from_millis(50),
    redrive_after: Duration::from_millis(300),
    rebalance_period: Some(Duration::from_millis(50)),
    lease_duration: Duration::from_secs(1),
};

/// The cluster that tests share.
pub(crate) async fn shared_redis() -> &'static RedisCluster {
    RedisCluster::shared().await.unwrap()
}

fn options(redis: &RedisCluster) -> ConnectOptions {
    ConnectOptions::new(redis.seeds().split(',').map(|seed| seed.into_connection_info().unwrap()).collect())
}

/// A client that calls the shards like a node, or to damage them.
pub(crate) async fn client_of(redis: &RedisCluster) -> Cluster {
    let cluster = Cluster::connect(options(redis), &LIBRARY).await.unwrap();
    cluster.load_library().await.unwrap();
    cluster
}

/// A coordinator whose background loops do not run.
pub(crate) async fn coordinator_on(redis: &RedisCluster) -> Coordinator {
    coordinator_with(redis, TIMING).await
}

/// The same with another timing.
pub(crate) async fn coordinator_with(redis: &RedisCluster, timing: Timing) -> Coordinator {
    let reads = Cluster::connect(read_options(&options(redis)), &LIBRARY).await.unwrap();
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let name = format!("coordinator-{}", NAMES.fetch_add(1, Ordering::Relaxed));
    Coordinator::new(name, reads, client_of(redis).await, timing)
}

/// Runs a scenario while the coordinator's loops run. The loops are cancelled when the scenario ends.
pub(crate) async fn while_running<T>(coordinator: &Coordinator, scenario: impl Future<Output = T>) -> T {
    tokio::select! {
        () = coordinator.run(pending()) => unreachable!("it is never stopped"),
        result = scenario => result,
    }
}

/// A sale of a hundred chairs that is open now.
pub(crate) fn chairs(id: &str) -> NewSale {
    NewSale {
        id: id.parse().unwrap(),
        total_stock: 100,
        starts_at: TimeSetting::At(1_000),
        ends_at: TimeSetting::At(4_000_000_000_000),
        product: Product { name: "Chair".into(), price: 49.9, description: String::new() },
        user_ids: UserIdKind::Opaque,
        shards: None,
    }
}

/// Reads the levels of a sale's shards. Repeats the read after a timeout, as the coordinator does.
pub(crate) async fn levels(coordinator: &Coordinator, id: &SaleId) -> Vec<Level> {
    let looked = tokio::time::timeout(SOON, async {
        loop {
            let levels = coordinator.inspect(id).await.unwrap().levels.into_iter().collect();
            match levels {
                Err(CallError::NoReply(_)) => continue,
                levels => return levels,
            }
        }
    });
    let levels: Result<Vec<Level>, CallError> = looked.await.expect("all shards are read in time");
    levels.unwrap()
}

/// Asserts that the audit finds no violation, and this total.
pub(crate) async fn assert_clean(coordinator: &Coordinator, id: &SaleId, total: u64) {
    let audit = coordinator.audit(id).await.unwrap();
    assert!(audit.ok, "{:?}", audit.violations);
    assert_eq!((audit.total, audit.in_flight), (total, 0));
}

/// Buys once in the user's home shard, as a node does.
pub(crate) async fn buy(coordinator: &Coordinator, client: &Cluster, id: &SaleId, user: &str) -> BuyOutcome {
    let sale = coordinator.existing(id).await.unwrap().sale;
    let user = UserId::parse(user, UserIdKind::Opaque).unwrap();
    let shard = sale.shard(sale.ring().home(&user));
    let attempt =
        Attempt { user, order: OrderId::random(), correlation: "trace".into(), counts_towards_limit: true };
    client
        .write(Buy { shard, attempts: &[attempt], limit: None, not_after: Buy::AT_ANY_TIME })
        .await
        .unwrap()
        .outcomes[0]
}
