//! Fixtures: a cluster, coordinators, sales, a buyer.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coordinator::change::Change;
use coordinator::context::read_options;
use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use coordinator::timing::Timing;
use redis::{FromRedisValue, IntoConnectionInfo};
use rediscluster::{CallError, Cluster, ConnectOptions, Slot};
use service::settings::TimeSetting;
use stock::calls::{Attempt, Buy, BuyOutcome, Level};
use stock::functions::LIBRARY;
use stock::history::ChangeOrigin;
use stock::ids::{OrderId, SaleId, ShardId, UserId, UserIdKind};
use stock::layout::Shard;
use stock::sale::{Product, Restock, Sale};
use testkit::RedisCluster;

/// Deadline for everything that a coordinator does in the background, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Timing of the coordinators in these tests.
pub(crate) const TIMING: Timing = Timing {
    snapshot_period: Duration::from_millis(50),
    redrive_after: Duration::from_millis(300),
    rebalance_period: Duration::from_millis(50),
    lease_duration: Duration::from_secs(1),
    library_unused_max: Duration::from_secs(3),
    rest_after: Duration::from_millis(300),
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

/// Waits until the leader has observed the sale this many times more, and has acted on it in between.
pub(crate) async fn wait_for_observations(leader: &Coordinator, id: &SaleId, count: usize) {
    let observed_at = || leader.observations().get(id).map(|observation| observation.observed_at);
    for _ in 0..count {
        let before = observed_at();
        testkit::until("the next observation", SOON, async || observed_at() != before).await.unwrap();
    }
}

/// A sale of a hundred chairs in twelve shards that is open now.
pub(crate) fn chairs(id: &str) -> NewSale {
    NewSale {
        id: id.parse().unwrap(),
        total_stock: 100,
        starts_at: TimeSetting::At(1_000),
        ends_at: TimeSetting::At(4_000_000_000_000),
        product: Product { name: "Chair".into(), price: 49.9, description: String::new() },
        user_ids: UserIdKind::Opaque,
        shards: Some(12),
    }
}

/// The origin of changes that a test makes without HTTP.
pub(crate) fn by_test() -> &'static ChangeOrigin {
    static ORIGIN: LazyLock<ChangeOrigin> =
        LazyLock::new(|| ChangeOrigin { operator: Some("test".to_owned()), ..ChangeOrigin::default() });
    &ORIGIN
}

/// Reads the levels of a sale's shards. Repeats the read after a timeout, as the coordinator does.
pub(crate) async fn levels(coordinator: &Coordinator, id: &SaleId) -> Vec<Level> {
    let look = async {
        loop {
            match coordinator.sales.inspect(id).await.unwrap().levels.into_iter().collect() {
                Err(CallError::NoReply(_)) => {}
                levels => return levels.unwrap(),
            }
        }
    };
    tokio::time::timeout(SOON, look).await.expect("all shards are read in time")
}

/// Asserts that the audit finds no violation, and this total.
pub(crate) async fn assert_clean(coordinator: &Coordinator, id: &SaleId, total: u64) {
    let audit = coordinator.sales.audit(id).await.unwrap();
    assert!(audit.ok, "{:?}", audit.violations);
    assert_eq!((audit.total, audit.in_flight), (total, 0));
}

/// Waits until the condition holds.
pub(crate) async fn until<Check: Future<Output = bool>>(what: &str, condition: impl FnMut() -> Check) {
    testkit::until(what, SOON, condition).await.unwrap();
}

/// The primary that serves a slot.
pub(crate) fn primary_of(client: &Cluster, slot: Slot) -> SocketAddr {
    client.topology().primary(slot).unwrap().address.to_string().parse().unwrap()
}

/// Sends a command to one server.
pub(crate) async fn send<T: FromRedisValue>(redis: &RedisCluster, server: SocketAddr, cmd: &redis::Cmd) -> T {
    cmd.query_async(&mut redis.connection(server).await.unwrap()).await.unwrap()
}

/// Deletes all keys of a shard, as if both of its servers had lost their data.
pub(crate) async fn delete_shard(redis: &RedisCluster, client: &Cluster, shard: &Shard) {
    let keys = [&shard.meta, &shard.claims, &shard.orders];
    let deleted: usize = send(redis, primary_of(client, shard.slot), redis::cmd("DEL").arg(&keys)).await;
    assert_eq!(deleted, keys.len());
}

pub(crate) fn restock(key: &str, units: u64) -> Change {
    Change::Restock(Restock { key: key.into(), units })
}

/// Distinct users whose home is this shard.
pub(crate) fn users_of<'a>(sale: &'a Sale, home: ShardId, prefix: &str) -> impl Iterator<Item = UserId> + 'a {
    let name = format!("{prefix}-");
    let users = (0..).map(move |n| UserId::parse(&format!("{name}{n}"), UserIdKind::Opaque).unwrap());
    users.filter(move |user| sale.ring().home(user) == home)
}

/// An attempt of each user.
pub(crate) fn attempts(users: impl Iterator<Item = UserId>) -> Vec<Attempt> {
    users.map(|user| Attempt { user, order: OrderId::random(), correlation: "trace".into() }).collect()
}

/// The call that buys for users whose home is this shard, as a node makes it.
pub(crate) fn purchase<'a>(shard: &'a Shard, attempts: &'a [Attempt]) -> Buy<'a> {
    Buy { shard, attempts, not_after: Buy::AT_ANY_TIME }
}

/// Buys once in the user's home shard.
pub(crate) async fn buy(coordinator: &Coordinator, client: &Cluster, id: &SaleId, user: &str) -> BuyOutcome {
    let sale = coordinator.sales.existing(id).await.unwrap().sale;
    let user = UserId::parse(user, UserIdKind::Opaque).unwrap();
    let shard = sale.shard(sale.ring().home(&user));
    client.write(purchase(shard, &attempts([user].into_iter()))).await.unwrap().outcomes[0]
}
