//! Shared by the tests of this folder: the stack, its buyers, and the checks at the end of a sale.

use std::collections::{BTreeMap, HashMap};

use rediscluster::{Cluster, ConnectOptions};
use stock::functions::LIBRARY;
use stock::ids::{ShardId, UserId, UserIdKind};
use stock::layout::SaleKeys;
use stock::sale::Sale;
use stock::snapshot::read_levels;
use stock::store::ReadConfig;
use testkit::stack::SaleOptions;
use testkit::{BuyerAnswer, PurchaseAttempt, Stack, StackOptions, User};
use tokio::sync::{Mutex, MutexGuard};

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

    /// The number of function calls so far, including those that only read.
    pub(crate) async fn function_calls(&self) -> u64 {
        let redis = self.stack.redis();
        let calls = redis.command_stats("fcall").await.unwrap().calls;
        calls + redis.command_stats("fcall_ro").await.unwrap().calls
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
        let order = answer.order_id.as_deref().expect("a purchase contains its order id");
        let before = orders.insert(answer.user.as_str(), order);
        assert_eq!(before, None, "{} got `purchased` twice", answer.user);
    }
    orders
}

/// Counts the answers by status and reason, for messages.
pub(crate) fn tally(answers: &[BuyerAnswer]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        let status = answer.status.map_or("none".into(), |status| status.to_string());
        let reason = answer.reason.as_deref().unwrap_or_default();
        *tally.entry(format!("{status} {reason}")).or_default() += 1;
    }
    tally
}

/// Asserts that every answer is definite: purchased, already purchased, or sold out.
pub(crate) fn assert_all_definite(answers: &[BuyerAnswer]) {
    let refusals = ["already_purchased", "out_of_stock"];
    let is_refusal = |answer: &BuyerAnswer| {
        answer.status == Some(409)
            && answer.reason.as_deref().is_some_and(|reason| refusals.contains(&reason))
    };
    let expected = |answer: &BuyerAnswer| answer.is_purchased() || is_refusal(answer);
    assert!(answers.iter().all(expected), "the answers are {:?}", tally(answers));
}

/// Asserts that a repeated purchase got the order of the first one.
pub(crate) fn assert_repeats_recognized(answers: &[BuyerAnswer]) {
    let orders = purchases(answers);
    for answer in answers.iter().filter(|answer| !answer.is_purchased()) {
        let bought = orders.get(answer.user.as_str());
        let reported_order =
            (answer.reason.as_deref() == Some("already_purchased")).then_some(answer.order_id.as_deref());
        assert_eq!(
            reported_order,
            bought.map(|order| Some(*order)),
            "{} got {:?}",
            answer.user,
            answer.reason
        );
    }
}
