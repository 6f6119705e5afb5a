//! Fixtures shared by all tests: a cluster, sales on it, and buyers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use redis::{Cmd, FromRedisValue, IntoConnectionInfo, Value, from_redis_value};
use rediscluster::{Call, CallError, Cluster, ConnectOptions, EpochMs, Slot};
use stock::calls::{
    Accept, Attempt, Buy, BuyAnswer, BuyOutcome, Claim, Configure, Find, Level, ReadLevel, Record,
    TokenSource,
};
use stock::functions::LIBRARY;
use stock::history::HistoryEntry;
use stock::ids::{OrderId, ShardId, UserId, UserIdKind};
use stock::layout::{Incarnation, SaleKeys, Shard, choose_tags};
use stock::sale::{ChangeHistory, LayoutConfig, Product, Sale, SaleConfig, SaleState, Window};
use testkit::{ClusterOptions, RedisCluster};

/// Open for as long as any test runs.
pub(crate) const ALWAYS: Window = Window { starts_at: 0, ends_at: 4_000_000_000_000 };
/// Ended long ago.
pub(crate) const IN_THE_PAST: Window = Window { starts_at: 0, ends_at: 1 };
/// Far in the future.
pub(crate) const IN_THE_FUTURE: Window = Window { starts_at: 4_000_000_000_000, ends_at: 4_000_000_000_001 };

/// Returns the cluster that tests share.
pub(crate) async fn shared_redis() -> &'static RedisCluster {
    RedisCluster::shared().await.unwrap()
}

pub(crate) fn options(seeds: &str) -> ConnectOptions {
    ConnectOptions::new(seeds.split(',').map(|seed| seed.into_connection_info().unwrap()).collect())
}

/// Connects a client to this cluster and loads the library.
pub(crate) async fn client_of(redis: &RedisCluster) -> Cluster {
    client_with(options(&redis.seeds())).await
}

pub(crate) async fn client_with(options: ConnectOptions) -> Cluster {
    let cluster = Cluster::connect(options, &LIBRARY).await.unwrap();
    cluster.load_library().await.unwrap();
    cluster
}

/// Starts a cluster without replicas, for tests that damage it or use what a cluster has only once.
pub(crate) async fn redis_without_replicas() -> RedisCluster {
    let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
    RedisCluster::start(options).await.unwrap()
}

/// Sends a command to one server of a cluster.
pub(crate) async fn query_server<T: FromRedisValue>(
    redis: &RedisCluster,
    server: SocketAddr,
    cmd: &Cmd,
) -> T {
    cmd.query_async(&mut redis.connection(server).await.unwrap()).await.unwrap()
}

/// A sale with its shards, on the shared cluster or on a dedicated one.
pub(crate) struct TestSale {
    pub(crate) cluster: Cluster,
    pub(crate) sale: Sale,
}

impl TestSale {
    /// Creates an open sale of one shard with this many tokens.
    pub(crate) async fn selling(tokens: u64) -> Self {
        Self::over_shards(&[tokens]).await
    }

    /// Creates an open sale with one shard per element, holding that many tokens.
    pub(crate) async fn over_shards(tokens: &[u64]) -> Self {
        Self::on(client_of(shared_redis().await).await, tokens).await
    }

    /// Creates a sale of one shard with this many tokens, in this state and window.
    pub(crate) async fn in_state(state: SaleState, window: Window, tokens: u64) -> Self {
        let sale = Self::selling(tokens).await;
        sale.configure(3, state, window).await;
        sale
    }

    /// Creates an open sale on the cluster of this client.
    pub(crate) async fn on(cluster: Cluster, tokens: &[u64]) -> Self {
        Self::planned_on(cluster, tokens.len() as u16, tokens.iter().sum()).create(tokens).await
    }

    /// Creates an open sale on a new cluster, which a test may damage.
    pub(crate) async fn on_own_cluster(tokens: &[u64]) -> (RedisCluster, Self) {
        let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
        let sale = Self::on(client_of(&redis).await, tokens).await;
        (redis, sale)
    }

    /// Creates a sale that has no shards yet.
    pub(crate) async fn planned(shards: u16) -> Self {
        Self::planned_on(client_of(shared_redis().await).await, shards, 100)
    }

    fn planned_on(cluster: Cluster, shards: u16, total: u64) -> Self {
        let sale = Sale::new(config_on(&cluster, shards, total.max(1))).unwrap();
        Self { cluster, sale }
    }

    /// Creates, mints, records and opens the sale, like a coordinator.
    async fn create(self, tokens: &[u64]) -> Self {
        let mint = |(shard, &cumulative)| Accept { shard, from: TokenSource::Mint, cumulative };
        let incarnations = self.configure_all(1, SaleState::Creating).await;
        let mints: Vec<_> = self.sale.shards().iter().zip(tokens).map(mint).collect();
        unwrap_all(self.cluster.write_all(&mints).await);

        let layout = LayoutConfig { incarnations, ..self.sale.config.layout.clone() };
        let sale = self.sale.at(SaleConfig { layout, ..(*self.sale.config).clone() }).unwrap();
        let opened = Self { sale, ..self };
        let (keys, config) = (SaleKeys::new(opened.sale.id()), &*opened.sale.config);
        opened
            .cluster
            .write(Record { keys: &keys, based_on: 0, config, mint: tokens, entry: &HistoryEntry::default() })
            .await
            .unwrap();
        opened.configure_all(2, SaleState::Open).await;
        opened
    }

    async fn configure_all(&self, version: u64, state: SaleState) -> Vec<Incarnation> {
        let configure = |shard| Configure { shard, version, state, window: ALWAYS };
        let calls: Vec<_> = self.sale.shards().iter().map(configure).collect();
        unwrap_all(self.cluster.write_all(&calls).await).into_iter().map(|held| held.incarnation).collect()
    }

    /// Returns the first shard, which is the only one in most tests.
    pub(crate) fn shard(&self) -> &Shard {
        self.shard_at(0)
    }

    pub(crate) fn shard_at(&self, index: u16) -> &Shard {
        self.sale.shard(ShardId::new(index))
    }

    /// Changes the settings of the first shard and returns the version that it then holds.
    pub(crate) async fn configure(&self, version: u64, state: SaleState, window: Window) -> u64 {
        let configure = Configure { shard: self.shard(), version, state, window };
        self.cluster.write(configure).await.unwrap().settings.version
    }

    /// Makes a new attempt of this user in the first shard.
    pub(crate) async fn buy(&self, user: &str) -> BuyOutcome {
        self.try_buy(&attempt(user)).await
    }

    pub(crate) async fn try_buy(&self, attempt: &Attempt) -> BuyOutcome {
        self.buy_batch(std::slice::from_ref(attempt)).await.outcomes[0]
    }

    /// Makes several attempts in one call to the first shard.
    pub(crate) async fn buy_batch(&self, attempts: &[Attempt]) -> BuyAnswer {
        self.cluster.write(buying(self.shard(), attempts)).await.unwrap()
    }

    pub(crate) async fn claim_of(&self, user: &str) -> Option<Claim> {
        self.cluster.write(Find { shard: self.shard(), users: &[user_id(user)] }).await.unwrap()[0]
    }

    pub(crate) async fn level(&self) -> Level {
        self.level_of(self.shard()).await
    }

    /// Returns the primary of a shard by the client's map.
    pub(crate) fn primary_of(&self, shard: &Shard) -> SocketAddr {
        self.cluster.topology().primary(shard.slot).unwrap().address.to_string().parse().unwrap()
    }

    pub(crate) async fn level_of(&self, shard: &Shard) -> Level {
        self.cluster.read(ReadLevel { shard }).await.unwrap()
    }

    /// Returns the contents of the shard's keys, to check that a call changed nothing.
    pub(crate) async fn contents(&self) -> (Vec<(String, String)>, Vec<(String, String)>, Vec<Entry>) {
        let Shard { meta, claims, .. } = self.shard();
        (self.query(&Cmd::hgetall(meta)).await, self.query(&Cmd::hgetall(claims)).await, self.entries().await)
    }

    /// Returns the order stream as stored in Redis.
    pub(crate) async fn entries(&self) -> Vec<Entry> {
        self.query(redis::cmd("XRANGE").arg(&self.shard().orders).arg("-").arg("+")).await
    }

    pub(crate) async fn tick(&self) -> u64 {
        self.meta("tick").await.parse().unwrap()
    }

    /// Returns a field of the shard's meta as stored.
    pub(crate) async fn meta(&self, field: &str) -> String {
        self.query(&Cmd::hget(&self.shard().meta, field)).await
    }

    /// Sends a raw command to the primary of the first shard.
    pub(crate) async fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> T {
        self.query_at(self.shard(), cmd).await
    }

    pub(crate) async fn query_at<T: FromRedisValue>(&self, shard: &Shard, cmd: &Cmd) -> T {
        self.query_slot(shard.slot, cmd).await
    }

    /// Sends a raw command to the primary of a slot.
    pub(crate) async fn query_slot<T: FromRedisValue>(&self, slot: Slot, cmd: &Cmd) -> T {
        from_redis_value(self.cluster.read(Raw { slot, cmd }).await.unwrap()).unwrap()
    }
}

/// An entry of the order stream: its id, and one field per buyer.
pub(crate) type Entry = (String, Vec<(String, String)>);

/// A raw command as a call.
pub(crate) struct Raw<'a> {
    pub(crate) slot: Slot,
    pub(crate) cmd: &'a Cmd,
}

impl Call for Raw<'_> {
    type Answer = Value;

    fn slot(&self) -> Slot {
        self.slot
    }

    fn command(&self) -> Cmd {
        self.cmd.clone()
    }

    fn answer(&self, reply: Value) -> Result<Value, CallError> {
        Ok(reply)
    }
}

/// Returns the configuration of a sale that no other test uses, with shards spread over the cluster.
pub(crate) fn config_on(cluster: &Cluster, shards: u16, total_stock: u64) -> SaleConfig {
    static SALES: AtomicU32 = AtomicU32::new(0);
    let id = format!("sale-{}", SALES.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    let topology = cluster.topology();
    let tags = choose_tags(&id, shards, |slot| topology.primary(slot).map(|primary| primary.address.clone()));
    SaleConfig {
        id,
        version: 2,
        state: SaleState::Open,
        window: ALWAYS,
        total_stock,
        product: Product { name: "Chair".into(), price: 49.9, description: String::new() },
        user_ids: UserIdKind::Opaque,
        layout: LayoutConfig::new(tags),
        changes: ChangeHistory::default(),
        archive: None,
    }
}

pub(crate) fn user_id(id: &str) -> UserId {
    UserId::parse(id, UserIdKind::Opaque).unwrap()
}

/// Creates a new attempt of this user.
pub(crate) fn attempt(user: &str) -> Attempt {
    Attempt { user: user_id(user), order: OrderId::random(), correlation: "trace".into() }
}

pub(crate) fn attempts<'a>(users: impl IntoIterator<Item = &'a str>) -> Vec<Attempt> {
    users.into_iter().map(attempt).collect()
}

/// Returns a purchase without a limit, which never comes too late.
pub(crate) fn buying<'a>(shard: &'a Shard, attempts: &'a [Attempt]) -> Buy<'a> {
    Buy { shard, attempts, not_after: Buy::AT_ANY_TIME }
}

/// Returns the claim of a purchase that must have succeeded in this call.
#[track_caller]
pub(crate) fn claim(bought: BuyOutcome) -> Claim {
    match bought {
        BuyOutcome::Bought(claim) => claim,
        other => panic!("a buyer who should have got a unit got {other:?}"),
    }
}

/// Returns the claim of a purchase that must have succeeded by now. During a failover, the answer of the successful
/// try may be lost, and the next try finds the claim.
#[track_caller]
pub(crate) fn eventual_claim(bought: BuyOutcome) -> Claim {
    match bought {
        BuyOutcome::Repeat(claim) => claim,
        other => claim(other),
    }
}

#[track_caller]
pub(crate) fn unwrap_all<T>(answers: Vec<Result<T, CallError>>) -> Vec<T> {
    answers.into_iter().collect::<Result<_, _>>().unwrap()
}

/// Returns the shard as a caller with another ring would address it.
pub(crate) fn with_another_ring(shard: &Shard) -> Shard {
    Shard { ring: LayoutConfig::new(vec![]).fingerprint.as_str().to_owned(), ..shard.clone() }
}

/// Returns the time by the clock of the shard's primary.
pub(crate) async fn server_clock(sale: &TestSale) -> EpochMs {
    sale.level().await.at
}
