//! Shared by the tests of this folder: the stack, its buyers, and the checks at the end of a sale.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use buyers::AnswerKind;
use redis::{Cmd, FromRedisValue};
use rediscluster::{Cluster, ConnectOptions, Slot};
use stock::functions::LIBRARY;
use stock::ids::{ShardId, UserId, UserIdKind};
use stock::layout::SaleKeys;
use stock::sale::Sale;
use stock::snapshot::read_levels;
use stock::store::ReadConfig;
use testkit::stack::SaleOptions;
pub(crate) use testkit::tally;
use testkit::{BuyerAnswer, Buyers, PurchaseAttempt, Stack, StackOptions, User, until};
use tokio::sync::{Mutex, MutexGuard};

/// Time limit for any expected change, on a busy machine too. It is longer than the cluster needs to replace a server.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(40);

/// Allows one stack at a time: two would share the machine's two cores and cause timeouts in each other.
static STACK_LOCK: Mutex<()> = Mutex::const_new(());

/// An open sale on a stack of its own.
pub(crate) struct OpenSale {
    pub(crate) stack: Stack,
    pub(crate) sale: Sale,
    pub(crate) cluster: Cluster,
    _stack_lock: MutexGuard<'static, ()>,
}

impl OpenSale {
    pub(crate) async fn start(total_stock: u64) -> Self {
        Self::start_with(StackOptions { sale: sale_options(total_stock), ..StackOptions::default() }).await
    }

    pub(crate) async fn start_with(options: StackOptions) -> Self {
        let stack_lock = STACK_LOCK.lock().await;
        let stack = Stack::start(options, |_| ()).await.expect("the stack starts");
        let cluster = connect(&stack).await;
        let sale = read_sale(&cluster, "flash").await;
        Self { stack, sale, cluster, _stack_lock: stack_lock }
    }

    pub(crate) async fn start_with_one_node(sale: SaleOptions) -> Self {
        Self::start_with(StackOptions { nodes: 1, sale, ..StackOptions::default() }).await
    }

    /// Starts a sale with purchases by this many users of its first shard.
    pub(crate) async fn start_with_purchases(
        total_stock: u64,
        count: usize,
    ) -> (Self, Vec<String>, Vec<BuyerAnswer>) {
        let sale = Self::start(total_stock).await;
        let users = users_with_home(&sale.sale, ShardId::new(0), count);
        let answers = buy_at(&sale.node_url(), &users).await;
        assert_purchases(&answers, count);
        (sale, users, answers)
    }

    /// Lets these users buy through nginx until each has a definite answer.
    pub(crate) async fn buy(&self, users: &[String]) -> Vec<BuyerAnswer> {
        buy_at(&self.stack.url(), users).await
    }

    /// The address of the first node.
    pub(crate) fn node_url(&self) -> String {
        self.stack.nodes()[0].url().to_owned()
    }

    /// Waits until the status shows this remaining stock.
    pub(crate) async fn wait_for_stock(&self, units: u64) {
        let shown = async || self.stack.status().await.is_ok_and(|status| status.remaining_stock == units);
        until(&format!("the status shows {units} units"), TIMEOUT, shown).await.unwrap();
    }

    /// The primary of a slot by the client's map.
    pub(crate) fn primary_of(&self, slot: Slot) -> SocketAddr {
        self.cluster.topology().primary(slot).unwrap().address.to_string().parse().unwrap()
    }

    /// The primary of a shard by the client's map, and its first replica.
    pub(crate) async fn primary_and_replica(&self, shard: ShardId) -> (SocketAddr, SocketAddr) {
        let primary = self.primary_of(self.sale.shard(shard).slot);
        (primary, self.stack.redis().replicas_of(primary).await[0])
    }

    /// Sends a command to one Redis server.
    pub(crate) async fn query<T: FromRedisValue>(&self, server: SocketAddr, command: &Cmd) -> T {
        let mut connection = self.stack.redis().connection(server).await.unwrap();
        command.query_async(&mut connection).await.unwrap()
    }

    /// The number of function calls so far, including those that only read.
    pub(crate) async fn function_calls(&self) -> u64 {
        let redis = self.stack.redis();
        let calls = redis.command_stats("fcall").await.unwrap().calls;
        calls + redis.command_stats("fcall_ro").await.unwrap().calls
    }

    /// Freezes all replicas.
    pub(crate) async fn freeze_replicas(&self) -> Vec<SocketAddr> {
        let replicas = self.stack.redis().replicas().await;
        replicas.iter().for_each(|&replica| self.stack.redis().freeze(replica));
        replicas
    }

    pub(crate) fn thaw(&self, servers: &[SocketAddr]) {
        servers.iter().for_each(|&server| self.stack.redis().thaw(server));
    }

    /// Waits until the first node knows that this number of replicas are marked as failed.
    pub(crate) async fn wait_until_node_knows_failed_replicas(&self, count: usize) {
        let (node, shows_count) = (self.stack.nodes()[0].process(), format!(" map shows {count}"));
        let knows = async || {
            let log = fs::read_to_string(node.log()).unwrap();
            log.rsplit_once(" failed replicas").is_some_and(|(latest, _)| latest.ends_with(&shows_count))
        };
        until("the node's map shows the failed replicas", TIMEOUT, knows).await.unwrap();
    }

    /// Tokens in channels now: donated and not yet accepted.
    pub(crate) async fn tokens_in_channels(&self) -> u64 {
        let levels = read_levels(&self.cluster, &self.sale).await;
        let levels: Vec<_> = levels.into_iter().map(|level| level.expect("the shard answers")).collect();
        let donated: u64 = levels.iter().flat_map(|level| &level.donated).map(|(_, tokens)| tokens).sum();
        let accepted = levels.iter().flat_map(|level| &level.accepted);
        let stolen = accepted.filter(|(source, _)| *source != stock::calls::TokenSource::Mint);
        donated.saturating_sub(stolen.map(|(_, tokens)| tokens).sum())
    }

    /// Asserts the outcome of a sale that sold out: every unit is sold, each to a different buyer, and the
    /// acknowledged purchases equal the recorded ones.
    pub(crate) async fn assert_sold_out(&self, answers: &[BuyerAnswer]) {
        let total = self.sale.config.total_stock;
        let audit = self.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "the audit found {:?}", audit.violations);
        assert_eq!((audit.sold, audit.stock, audit.in_flight), (total, 0, 0), "units are left");
        assert_eq!((audit.claims, audit.orders), (total, total));
        assert_eq!(purchases(answers).len() as u64, total, "the number of acknowledged purchases differs");
    }
}

/// Reads a series from the metrics of a process.
pub(crate) async fn metric(base_url: &str, series: &str) -> u64 {
    let metrics = reqwest::get(format!("{base_url}/metrics")).await.unwrap().text().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} is not in\n{metrics}")).parse().unwrap()
}

pub(crate) async fn read_sale(cluster: &Cluster, id: &str) -> Sale {
    let keys = SaleKeys::new(&id.parse().unwrap());
    Sale::new(cluster.read(ReadConfig(&keys)).await.unwrap().expect("the sale exists")).unwrap()
}

/// Returns user ids whose home shard is `home`.
pub(crate) fn users_with_home(sale: &Sale, home: ShardId, count: usize) -> Vec<String> {
    let ids = (0..).map(|n| format!("neighbour-{n:06}"));
    let home_of = |id: &str| sale.ring().home(&UserId::parse(id, UserIdKind::Opaque).unwrap());
    ids.filter(|id| home_of(id) == home).take(count).collect()
}

pub(crate) fn sale_options(total_stock: u64) -> SaleOptions {
    SaleOptions { total_stock, shards: Some(12), ..SaleOptions::default() }
}

pub(crate) async fn connect(stack: &Stack) -> Cluster {
    let seeds = stack.redis().logins(User::Admin).expect("the password files exist");
    Cluster::connect(ConnectOptions::new(seeds), &LIBRARY).await.expect("the cluster answers")
}

/// Returns the users with these numbers.
pub(crate) fn buyers(numbers: Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("buyer-{number:05}")).collect()
}

/// Lets these users buy at this address until each has a definite answer.
pub(crate) async fn buy_at(base_url: &str, users: &[String]) -> Vec<BuyerAnswer> {
    Buyers::new(16).buy_persistently(purchase_attempts(users, base_url), TIMEOUT).await
}

/// One purchase attempt per user, all for the same URL.
pub(crate) fn purchase_attempts<'a>(
    users: impl IntoIterator<Item = &'a String>,
    base_url: &str,
) -> Vec<PurchaseAttempt> {
    users
        .into_iter()
        .map(|user| PurchaseAttempt { user: user.clone(), base_url: base_url.to_owned() })
        .collect()
}

/// The order of each user whose answer was `purchased`. Panics when a user got that answer twice.
pub(crate) fn purchases(answers: &[BuyerAnswer]) -> HashMap<&str, &str> {
    let mut orders = HashMap::new();
    for answer in answers.iter().filter(|answer| answer.is_purchased()) {
        let order = answer.order.as_deref().expect("a purchase contains its order id");
        let before = orders.insert(answer.user.as_str(), order);
        assert_eq!(before, None, "{} got `purchased` twice", answer.user);
    }
    orders
}

/// The value that this many percent of the values do not exceed, or the default without values.
pub(crate) fn percentile<T: Copy + Default + Ord>(percent: usize, values: impl IntoIterator<Item = T>) -> T {
    let mut sorted: Vec<T> = values.into_iter().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

#[track_caller]
pub(crate) fn assert_purchases(answers: &[BuyerAnswer], count: usize) {
    assert_eq!(purchases(answers).len(), count, "the answers are {:?}", tally(answers));
}

/// Asserts that every answer is definite: purchased, already purchased, or sold out.
pub(crate) fn assert_all_definite(answers: &[BuyerAnswer]) {
    let expected = [AnswerKind::Purchased, AnswerKind::AlreadyPurchased, AnswerKind::SoldOut];
    let is_expected = |answer: &BuyerAnswer| expected.contains(&answer.kind);
    assert!(answers.iter().all(is_expected), "the answers are {:?}", tally(answers));
}

/// Asserts that a repeated purchase got the order of the first one.
pub(crate) fn assert_repeats_recognized(answers: &[BuyerAnswer]) {
    let orders = purchases(answers);
    for answer in answers.iter().filter(|answer| !answer.is_purchased()) {
        let bought = orders.get(answer.user.as_str());
        let reported = answer.order.as_deref();
        assert_eq!(reported, bought.copied(), "{} got {:?}", answer.user, answer.kind);
    }
}
