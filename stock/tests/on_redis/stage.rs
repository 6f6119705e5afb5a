//! The stage of every story: a cluster, sales on it, and buyers.

use std::sync::atomic::{AtomicU32, Ordering};

use redis::{Cmd, FromRedisValue, IntoConnectionInfo, Value, from_redis_value};
use stock::calls::{
    Accept, Attempt, Buy, BuyAnswer, BuyOutcome, Call, CallError, Claim, Configure, Find, Level, ReadLevel,
    Record, TokenSource,
};
use stock::cluster::Cluster;
use stock::connection::ConnectOptions;
use stock::ids::{CorrelationId, OrderId, ShardId, UserId, UserIdKind};
use stock::layout::{SaleKeys, Shard, Slot, choose_tags};
use stock::sale::{ChangeHistory, EpochMs, LayoutConfig, Product, Sale, SaleConfig, SaleState, Window};
use testkit::RedisCluster;

/// Open for as long as any test runs.
pub(crate) const ALL_THE_TIME: Window = Window { starts_at: 0, ends_at: 4_000_000_000_000 };
/// Over for long.
pub(crate) const IN_THE_PAST: Window = Window { starts_at: 0, ends_at: 1 };
/// Far from now.
pub(crate) const IN_THE_FUTURE: Window = Window { starts_at: 4_000_000_000_000, ends_at: 4_000_000_000_001 };

/// The cluster that tests share.
pub(crate) async fn shared_redis() -> &'static RedisCluster {
    RedisCluster::shared().await.unwrap()
}

pub(crate) fn options(seeds: &str) -> ConnectOptions {
    ConnectOptions::new(seeds.split(',').map(|seed| seed.into_connection_info().unwrap()).collect())
}

/// A client of this cluster, with the library loaded.
pub(crate) async fn client_of(redis: &RedisCluster) -> Cluster {
    client_with(options(&redis.seeds())).await
}

pub(crate) async fn client_with(options: ConnectOptions) -> Cluster {
    let cluster = Cluster::connect(options).await.unwrap();
    cluster.load_library().await.unwrap();
    cluster
}

/// A sale with its shards on the shared cluster or on one of its own.
pub(crate) struct TestSale {
    pub(crate) cluster: Cluster,
    pub(crate) sale: Sale,
}

impl TestSale {
    /// One shard with so many tokens, open now.
    pub(crate) async fn selling(tokens: u64) -> Self {
        Self::over_shards(&[tokens]).await
    }

    /// A shard for each of these numbers of tokens, open now.
    pub(crate) async fn over_shards(tokens: &[u64]) -> Self {
        Self::on(client_of(shared_redis().await).await, tokens).await
    }

    /// One shard with so many tokens, in this state and window.
    pub(crate) async fn in_state(state: SaleState, window: Window, tokens: u64) -> Self {
        let sale = Self::selling(tokens).await;
        sale.configure(3, state, window).await;
        sale
    }

    /// A sale on the cluster of this client.
    pub(crate) async fn on(cluster: Cluster, tokens: &[u64]) -> Self {
        let sale = Self::planned_on(cluster, tokens.len() as u16, tokens.iter().sum());
        sale.create(tokens).await;
        sale
    }

    /// A sale that has no shards yet.
    pub(crate) async fn planned(shards: u16) -> Self {
        Self::planned_on(client_of(shared_redis().await).await, shards, 100)
    }

    fn planned_on(cluster: Cluster, shards: u16, total: u64) -> Self {
        let sale = Sale::new(config_on(&cluster, shards, total.max(1))).unwrap();
        Self { cluster, sale }
    }

    /// As a coordinator does: recorded, made, minted, opened.
    async fn create(&self, tokens: &[u64]) {
        let (keys, shards) = (SaleKeys::new(self.sale.id()), self.sale.shards());
        self.cluster
            .write(Record { keys: &keys, based_on: 0, config: &self.sale.config, mint: tokens })
            .await
            .unwrap();
        let configure = |version, state| {
            let one = move |shard| Configure { shard, version, state, window: ALL_THE_TIME };
            shards.iter().map(one).collect::<Vec<_>>()
        };
        let mint = |(shard, &cumulative)| Accept { shard, from: TokenSource::Mint, cumulative };
        all_done(self.cluster.write_all(&configure(1, SaleState::Creating)).await);
        all_done(self.cluster.write_all(&shards.iter().zip(tokens).map(mint).collect::<Vec<_>>()).await);
        all_done(self.cluster.write_all(&configure(2, SaleState::Open)).await);
    }

    /// The only shard, or the first.
    pub(crate) fn shard(&self) -> &Shard {
        self.shard_at(0)
    }

    pub(crate) fn shard_at(&self, index: u16) -> &Shard {
        self.sale.shard(ShardId::new(index))
    }

    /// Brings the first shard to other settings.
    pub(crate) async fn configure(&self, version: u64, state: SaleState, window: Window) -> u64 {
        let configure = Configure { shard: self.shard(), version, state, window };
        self.cluster.write(configure).await.unwrap().version
    }

    /// A user tries to buy in the first shard, as never before.
    pub(crate) async fn buys(&self, user: &str) -> BuyOutcome {
        self.tries(&attempt(user)).await
    }

    pub(crate) async fn tries(&self, attempt: &Attempt) -> BuyOutcome {
        self.try_together(std::slice::from_ref(attempt)).await.outcomes[0]
    }

    /// Attempts in one call on the first shard.
    pub(crate) async fn try_together(&self, attempts: &[Attempt]) -> BuyAnswer {
        self.cluster.write(Buy { shard: self.shard(), attempts, limit: None }).await.unwrap()
    }

    pub(crate) async fn claim_of(&self, user: &str) -> Option<Claim> {
        self.cluster.write(Find { shard: self.shard(), users: &[user_id(user)] }).await.unwrap()[0]
    }

    pub(crate) async fn level(&self) -> Level {
        self.level_of(self.shard()).await
    }

    pub(crate) async fn level_of(&self, shard: &Shard) -> Level {
        self.cluster.read(ReadLevel { shard }).await.unwrap()
    }

    /// Everything that the shard's keys hold, to see that a call changed nothing.
    pub(crate) async fn contents(&self) -> (Vec<(String, String)>, Vec<(String, String)>, Vec<Entry>) {
        let Shard { meta, claims, .. } = self.shard();
        (self.ask(&Cmd::hgetall(meta)).await, self.ask(&Cmd::hgetall(claims)).await, self.entries().await)
    }

    /// The order stream as it lies in Redis.
    pub(crate) async fn entries(&self) -> Vec<Entry> {
        self.ask(redis::cmd("XRANGE").arg(&self.shard().orders).arg("-").arg("+")).await
    }

    pub(crate) async fn tick(&self) -> u64 {
        self.meta("tick").await.parse().unwrap()
    }

    /// A field of the shard's meta, as its very text.
    pub(crate) async fn meta(&self, field: &str) -> String {
        self.ask(&Cmd::hget(&self.shard().meta, field)).await
    }

    /// Sends a command of the test's own to the primary of the first shard.
    pub(crate) async fn ask<T: FromRedisValue>(&self, cmd: &Cmd) -> T {
        self.ask_at(self.shard(), cmd).await
    }

    pub(crate) async fn ask_at<T: FromRedisValue>(&self, shard: &Shard, cmd: &Cmd) -> T {
        self.ask_slot(shard.slot, cmd).await
    }

    /// Sends a command of the test's own to the primary of a slot.
    pub(crate) async fn ask_slot<T: FromRedisValue>(&self, slot: Slot, cmd: &Cmd) -> T {
        from_redis_value(self.cluster.read(Raw { slot, cmd }).await.unwrap()).unwrap()
    }
}

/// An entry of the order stream: its id, and a field a buyer.
pub(crate) type Entry = (String, Vec<(String, String)>);

/// A command as a call.
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

/// A sale that no other test has, with shards all over the cluster.
pub(crate) fn config_on(cluster: &Cluster, shards: u16, total_stock: u64) -> SaleConfig {
    static SALES: AtomicU32 = AtomicU32::new(0);
    let id = format!("sale-{}", SALES.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    let topology = cluster.topology();
    let tags = choose_tags(&id, shards, |slot| topology.primary(slot).map(|primary| primary.address.clone()));
    SaleConfig {
        id,
        version: 2,
        state: SaleState::Open,
        window: ALL_THE_TIME,
        total_stock,
        product: Product { name: "Chair".into(), price: 49.9, description: String::new() },
        user_ids: UserIdKind::Opaque,
        layout: LayoutConfig::new(tags),
        changes: ChangeHistory::default(),
    }
}

pub(crate) fn user_id(id: &str) -> UserId {
    UserId::parse(id, UserIdKind::Opaque).unwrap()
}

/// A new attempt of this user.
pub(crate) fn attempt(user: &str) -> Attempt {
    Attempt {
        user: user_id(user),
        order: OrderId::random(),
        correlation: CorrelationId::random(),
        counts: true,
    }
}

pub(crate) fn attempts<'a>(users: impl IntoIterator<Item = &'a str>) -> Vec<Attempt> {
    users.into_iter().map(attempt).collect()
}

/// The claim of somebody who must have got a unit just now.
#[track_caller]
pub(crate) fn claim(bought: BuyOutcome) -> Claim {
    match bought {
        BuyOutcome::Bought(claim) => claim,
        other => panic!("a buyer who should have got a unit was told {other:?}"),
    }
}

/// The claim of somebody who must have a unit by now. While servers come and go, the answer to the try that got it may be
/// lost, and the next one finds it.
#[track_caller]
pub(crate) fn claim_at_last(bought: BuyOutcome) -> Claim {
    match bought {
        BuyOutcome::Repeat(claim) => claim,
        other => claim(other),
    }
}

#[track_caller]
pub(crate) fn all_done<T>(answers: Vec<Result<T, CallError>>) -> Vec<T> {
    answers.into_iter().collect::<Result<_, _>>().unwrap()
}

/// The shard as a caller with another ring would address it.
pub(crate) fn on_another_ring(shard: &Shard) -> Shard {
    Shard { ring: LayoutConfig::new(vec![]).fingerprint, ..shard.clone() }
}

/// What the clock of the shard's primary says.
pub(crate) async fn clock_of(sale: &TestSale) -> EpochMs {
    sale.level().await.at
}
