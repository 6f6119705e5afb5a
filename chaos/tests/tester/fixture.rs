//! A small sale on three primaries, one shard each, and one node that may lack a protection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chaos::journal::{Change, Journal, JournalEntry, read};
use chaos::verdict::violations;
use chaos::{
    Buyer, BuyerCrowd, FinalState, Operator, RequestOutcome, audit, connect, read_claims, read_sale,
};
use redis::cmd;
use stock::functions::LIBRARY;
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::snapshot::read_levels;
use testkit::stack::{Programs, SaleOptions};
use testkit::{BuildProfile, Stack, StackOptions, binary, until};
use tokio::sync::{Mutex, MutexGuard};

/// One scene at a time: two would share the machine's cores and time each other out.
static STAGE: Mutex<()> = Mutex::const_new(());

/// Each shard has 20 of them, about.
pub(crate) const UNITS: u64 = 60;

/// Whatever has to happen happens by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);

pub(crate) struct TesterFixture {
    pub(crate) stack: Arc<Stack>,
    pub(crate) shop: BuyerCrowd,
    _stage: MutexGuard<'static, ()>,
}

impl TesterFixture {
    /// With every protection in.
    pub(crate) async fn sound() -> Self {
        Self::with("").await
    }

    /// With a node that lacks the protection of this name.
    pub(crate) async fn with(sabotage: &str) -> Self {
        let stage = STAGE.lock().await;
        let stack = Arc::new(Stack::start(options(sabotage), |_| ()).await.unwrap());
        let sale = read_sale(&connect(stack.redis()).await.unwrap(), "flash").await.unwrap();
        let journal = Journal::create(stack.folder().path().join("journal.jsonl")).unwrap();
        let shop = BuyerCrowd::new(sale, stack.clone(), journal);
        shop.open(Duration::ZERO).await.unwrap();
        Self { shop, stack, _stage: stage }
    }

    /// With functions in which one line is another, loaded under the very same name on every primary.
    pub(crate) async fn with_function_line(line: &str, instead: &str) -> Self {
        let scene = Self::sound().await;
        let code = mutated(line, instead);
        for primary in scene.stack.redis().primaries().await {
            let mut connection = scene.stack.redis().connection(primary).await.unwrap();
            let mut load = cmd("FUNCTION");
            let name: String =
                load.arg("LOAD").arg("REPLACE").arg(&code).query_async(&mut connection).await.unwrap();
            assert_eq!(name, LIBRARY.name);
        }
        scene
    }

    pub(crate) fn shard(&self, number: u16) -> &Shard {
        self.shop.sale().shard(ShardId::new(number))
    }

    /// Somebody at home in this shard.
    pub(crate) fn somebody_at(&self, shard: u16) -> Buyer {
        self.shop.neighbours(ShardId::new(shard), 1).remove(0)
    }

    pub(crate) async fn tries(&self, person: &Buyer, attempt: &str) -> RequestOutcome {
        self.shop.try_once(person, attempt).await.unwrap()
    }

    /// An operator makes a change and is told that it is done.
    pub(crate) async fn changes(&self, change: Change) {
        let operator = Operator::new(self.stack.clone(), self.shop.journal().clone());
        assert!(operator.make("flash", change).await.unwrap(), "{change:?} is not done");
    }

    /// Tries the same attempt until it has a definite answer.
    pub(crate) async fn keeps_trying(&self, person: &Buyer, attempt: &str) {
        let settled = async || !matches!(self.tries(person, attempt).await, RequestOutcome::Nothing(_));
        until("a definite answer", SOON, settled).await.unwrap();
    }

    /// People at home in this shard buy all it has.
    pub(crate) async fn run_dry(&self, shard: u16) {
        let units = self.shop.sale().split(UNITS)[usize::from(shard)];
        self.neighbours_buy(shard, units as usize).await;
    }

    /// So many people at home in this shard buy.
    pub(crate) async fn neighbours_buy(&self, shard: u16, count: usize) {
        let people = self.shop.neighbours(ShardId::new(shard), count);
        self.shop.all_buy(people, SOON).await.unwrap();
    }

    /// What the coordinator calls a problem of the sale now.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let coordinators = self.stack.coordinators();
        let url = format!("{}/admin/sales/{}", coordinators[0].url(), self.shop.sale().id());
        let request = reqwest::Client::new().get(url).bearer_auth(self.stack.admin_token());
        let Ok(response) = request.send().await else { return Vec::new() };
        let sale: serde_json::Value = response.json().await.unwrap_or_default();
        let problems = sale["problems"].as_array().into_iter().flatten();
        problems.filter_map(|problem| problem.as_str().map(str::to_owned)).collect()
    }

    /// The promises that were broken to people at home in other shards than this one.
    pub(crate) async fn violations_apart_from(&self, lost: u16) -> Vec<String> {
        let mut records = read(self.shop.journal().path()).unwrap();
        records.retain(|record| !matches!(record, JournalEntry::Invoked(invoked) if invoked.shard == lost));
        let claims =
            read_claims(&connect(self.stack.redis()).await.unwrap(), self.shop.sale()).await.unwrap();
        let end = FinalState { claims, total: UNITS, shards: Vec::new() };
        violations(&records, &end).into_iter().map(|found| format!("{found:?}")).collect()
    }

    /// Primary and replica of a shard.
    pub(crate) async fn pair_of(&self, shard: u16) -> (SocketAddr, SocketAddr) {
        let redis = self.stack.redis();
        let primary = redis.primary_of(self.shard(shard).slot).await.unwrap();
        (primary, redis.replicas_of(primary).await[0])
    }

    /// From now on nothing of what the primary writes gets to its replica: that one stands still, and its connection
    /// is gone, so that nothing waits in it either.
    pub(crate) async fn part(&self, (primary, replica): (SocketAddr, SocketAddr)) {
        self.stack.redis().freeze(replica);
        let mut connection = self.stack.redis().connection(primary).await.unwrap();
        let mut kill = cmd("CLIENT");
        let killed: u64 =
            kill.arg("KILL").arg("TYPE").arg("replica").query_async(&mut connection).await.unwrap();
        assert_eq!(killed, 1, "{primary} had another number of replicas");
    }

    /// The replica takes its dead primary's place, with what it has; the primary comes back as its replica.
    pub(crate) async fn promote_over_dead(&self, (primary, replica): (SocketAddr, SocketAddr)) {
        self.stack.redis().kill(primary);
        self.stack.redis().thaw(replica);
        self.stack.redis().wait_until_promoted(replica).await.unwrap();
        self.stack.redis().restart(primary).await.unwrap();
    }

    /// The first shard that gave tokens to another.
    pub(crate) async fn donor(&self) -> u16 {
        let cluster = connect(self.stack.redis()).await.unwrap();
        let levels = read_levels(&cluster, self.shop.sale()).await;
        let gave = |level: &Result<stock::calls::Level, _>| {
            level.as_ref().is_ok_and(|level| level.donated.iter().any(|(_, tokens)| *tokens > 0))
        };
        levels.iter().position(gave).expect("no shard gave tokens") as u16
    }

    /// What the audit says once everything runs and everything is sold.
    pub(crate) async fn verdict(self) -> Vec<String> {
        self.stack.redis().wait_until_whole().await.unwrap();
        self.shop.sell_out(SOON).await.unwrap();
        let records = read(self.shop.journal().path()).unwrap();
        audit(&self.stack, self.shop.sale(), &records).await.unwrap()
    }
}

fn options(sabotage: &str) -> StackOptions {
    StackOptions {
        nodes: 1,
        programs: Some(programs()),
        sale: SaleOptions { total_stock: UNITS, shards: Some(3), ..SaleOptions::default() },
        node_environment: vec![
            ("SABOTAGE".into(), sabotage.into()),
            ("RATE_LIMIT_USER_MAX".into(), "0".into()),
        ],
        // Tokens move when a buyer needs them, and not ahead of that: a story knows when.
        coordinator_environment: vec![("REBALANCE_PERIOD".into(), "0s".into())],
        ..StackOptions::default()
    }
}

/// The same node with and without protections: only what it is told differs.
fn programs() -> Programs {
    Programs { node: sabotaged_node(), coordinator: binary("flashsale-coordinator").unwrap() }
}

fn sabotaged_node() -> PathBuf {
    let profile = BuildProfile::of_this_program().unwrap();
    profile.build_with("flashsale-node-sabotaged", "node/sabotage").unwrap()
}

fn mutated(line: &str, instead: &str) -> String {
    assert_eq!(LIBRARY.code.matches(line).count(), 1, "the functions have no such line any more: {line}");
    LIBRARY.code.replace(line, instead)
}

#[track_caller]
pub(crate) fn assert_clean(verdict: &[String]) {
    assert!(verdict.is_empty(), "{}", verdict.join("\n"));
}

#[track_caller]
pub(crate) fn assert_names(verdict: &[String], violation: &str) {
    let named = verdict.iter().any(|found| found.contains(violation));
    assert!(named, "nothing says {violation:?} in:\n{}", verdict.join("\n"));
}
