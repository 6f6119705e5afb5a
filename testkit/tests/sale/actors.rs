//! What the stories of this folder have in common: the stage, the crowd, and what must hold at the end.

use std::collections::{BTreeMap, HashMap};

use stock::cluster::Cluster;
use stock::connection::ConnectOptions;
use stock::ids::{ShardId, UserId, UserIdKind};
use stock::layout::SaleKeys;
use stock::sale::Sale;
use stock::snapshot::read_levels;
use stock::store::ReadConfig;
use testkit::stack::SaleOptions;
use testkit::{BuyerAnswer, PurchaseAttempt, Stack, StackOptions, User};
use tokio::sync::{Mutex, MutexGuard};

/// One stack at a time: two would share the machine's two cores and time each other out.
static STAGE: Mutex<()> = Mutex::const_new(());

/// A sale that is open, on a stack of its own.
pub(crate) struct OpenSale {
    pub(crate) stack: Stack,
    pub(crate) sale: Sale,
    pub(crate) cluster: Cluster,
    _stage: MutexGuard<'static, ()>,
}

impl OpenSale {
    pub(crate) async fn of(total_stock: u64) -> Self {
        Self::with(StackOptions { sale: sale_of(total_stock), ..StackOptions::default() }).await
    }

    pub(crate) async fn with(options: StackOptions) -> Self {
        let stage = STAGE.lock().await;
        let stack = Stack::start(options, |_| ()).await.expect("the stack starts");
        let cluster = connect(&stack).await;
        let sale = read_sale(&cluster, "flash").await;
        Self { stack, sale, cluster, _stage: stage }
    }

    /// How often any function of the library was called so far, those that only read included.
    pub(crate) async fn function_calls(&self) -> u64 {
        let redis = self.stack.redis();
        let calls = redis.command_stats("fcall").await.unwrap().calls;
        calls + redis.command_stats("fcall_ro").await.unwrap().calls
    }

    /// Tokens that are in a channel now: donated and not accepted.
    pub(crate) async fn in_channels(&self) -> u64 {
        let levels = read_levels(&self.cluster, &self.sale).await;
        let levels: Vec<_> = levels.into_iter().map(|level| level.expect("the shard answers")).collect();
        let donated: u64 = levels.iter().flat_map(|level| &level.donated).map(|(_, tokens)| tokens).sum();
        let accepted = levels.iter().flat_map(|level| &level.accepted);
        let stolen = accepted.filter(|(source, _)| *source != stock::calls::TokenSource::Mint);
        donated.saturating_sub(stolen.map(|(_, tokens)| tokens).sum())
    }

    /// The promise, at the end of a sale that everybody tried to buy from: every unit is sold, each to somebody
    /// else, and what clients were told is what the books say.
    pub(crate) async fn assert_sold_out(&self, answers: &[BuyerAnswer]) {
        let total = self.sale.config.total_stock;
        let audit = self.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "the audit found {:?}", audit.violations);
        assert_eq!((audit.sold, audit.stock, audit.in_flight), (total, 0, 0), "units were left behind");
        assert_eq!((audit.claims, audit.orders), (total, total));
        assert_eq!(purchases(answers).len() as u64, total, "buyers were told of another number of purchases");
    }
}

async fn read_sale(cluster: &Cluster, id: &str) -> Sale {
    let keys = SaleKeys::new(&id.parse().unwrap());
    Sale::new(cluster.read(ReadConfig(&keys)).await.unwrap().expect("the sale is there")).unwrap()
}

/// Users whose home is this shard of the sale.
pub(crate) fn users_at_home_in(sale: &Sale, home: ShardId, count: usize) -> Vec<String> {
    let ids = (0..).map(|n| format!("neighbour-{n:06}"));
    let home_of = |id: &str| sale.ring().home(&UserId::parse(id, UserIdKind::Opaque).unwrap());
    ids.filter(|id| home_of(id) == home).take(count).collect()
}

pub(crate) fn sale_of(total_stock: u64) -> SaleOptions {
    SaleOptions { total_stock, shards: Some(12), ..SaleOptions::default() }
}

pub(crate) async fn connect(stack: &Stack) -> Cluster {
    let seeds = stack.redis().logins(User::Admin).expect("the passwords are there");
    Cluster::connect(ConnectOptions::new(seeds)).await.expect("the cluster answers")
}

/// One wish for each user, all sent to the same place.
pub(crate) fn wishes<'a>(
    users: impl IntoIterator<Item = &'a String>,
    base_url: &str,
) -> Vec<PurchaseAttempt> {
    users
        .into_iter()
        .map(|user| PurchaseAttempt { user: user.clone(), base_url: base_url.to_owned() })
        .collect()
}

/// Who was told `purchased`, with the order. Nobody may be told so twice.
pub(crate) fn purchases(answers: &[BuyerAnswer]) -> HashMap<&str, &str> {
    let mut orders = HashMap::new();
    for answer in answers.iter().filter(|answer| answer.is_purchased()) {
        let order = answer.order_id.as_deref().expect("a purchase names its order");
        let before = orders.insert(answer.user.as_str(), order);
        assert_eq!(before, None, "{} was told `purchased` twice", answer.user);
    }
    orders
}

/// How often each answer was given, for a person who reads a failure.
pub(crate) fn tally(answers: &[BuyerAnswer]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        let status = answer.status.map_or("none".into(), |status| status.to_string());
        let reason = answer.reason.as_deref().unwrap_or_default();
        *tally.entry(format!("{status} {reason}")).or_default() += 1;
    }
    tally
}

/// Every answer is one that a shop can show: bought, already bought, or sold out.
pub(crate) fn assert_all_definite(answers: &[BuyerAnswer]) {
    let refusals = ["already_purchased", "out_of_stock"];
    let is_refusal = |answer: &BuyerAnswer| {
        answer.status == Some(409)
            && answer.reason.as_deref().is_some_and(|reason| refusals.contains(&reason))
    };
    let expected = |answer: &BuyerAnswer| answer.is_purchased() || is_refusal(answer);
    assert!(answers.iter().all(expected), "buyers were told {:?}", tally(answers));
}

/// Whoever bought and asked again was told so, with the order of the purchase.
pub(crate) fn assert_repeats_recognised(answers: &[BuyerAnswer]) {
    let orders = purchases(answers);
    for answer in answers.iter().filter(|answer| !answer.is_purchased()) {
        let bought = orders.get(answer.user.as_str());
        let told =
            (answer.reason.as_deref() == Some("already_purchased")).then_some(answer.order_id.as_deref());
        assert_eq!(told, bought.map(|order| Some(*order)), "{} was told {:?}", answer.user, answer.reason);
    }
}
