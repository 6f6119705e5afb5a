//! A small sale on three primaries with one shard each, and one node that may lack a protection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use buyers::journal::{Change, Journal, JournalEntry, read};
use buyers::verdict::violations;
use buyers::{AnswerKind, FinalState, read_json};
use chaos::{Buyer, BuyerCrowd, Operator, audit, connect, read_claims, read_sale};
use redis::cmd;
use stock::calls::TokenSource;
use stock::functions::LIBRARY;
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::snapshot::read_levels;
use testkit::stack::{Programs, SaleOptions};
use testkit::{BuildProfile, Stack, StackOptions, binary, until};
use tokio::sync::{Mutex, MutexGuard};

/// Runs one test at a time: parallel ones would compete for the machine's cores and time out.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Units of the sale, about 20 in each shard.
pub(crate) const UNITS: u64 = 60;

/// Time limit of each step, long enough for a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct TesterFixture {
    pub(crate) stack: Arc<Stack>,
    pub(crate) crowd: BuyerCrowd,
    _guard: MutexGuard<'static, ()>,
}

impl TesterFixture {
    /// Starts a sale with all protections.
    pub(crate) async fn intact() -> Self {
        Self::with_sabotage("").await
    }

    /// Starts a sale with a node that lacks the protection with this name.
    pub(crate) async fn with_sabotage(sabotage: &str) -> Self {
        let guard = ONE_AT_A_TIME.lock().await;
        let stack = Arc::new(Stack::start(options(sabotage), |_| ()).await.unwrap());
        let sale = read_sale(&connect(stack.redis()).await.unwrap(), "flash").await.unwrap();
        let journal = Journal::create(stack.folder().path().join("journal.jsonl")).unwrap();
        let crowd = BuyerCrowd::new(sale, stack.clone(), journal);
        crowd.open(Duration::ZERO).await.unwrap();
        Self { crowd, stack, _guard: guard }
    }

    /// Starts a sale with one line of the functions replaced, and loads them under the same name on every primary.
    pub(crate) async fn with_function_line(line: &str, instead: &str) -> Self {
        let fixture = Self::intact().await;
        fixture.stack.redis().load_functions_with(&LIBRARY.code, line, instead).await.unwrap();
        fixture
    }

    pub(crate) fn shard(&self, number: u16) -> &Shard {
        self.crowd.sale().shard(ShardId::new(number))
    }

    /// Creates a buyer with this home shard.
    pub(crate) fn buyer_at(&self, shard: u16) -> Buyer {
        self.crowd.new_buyers_at(ShardId::new(shard), 1).remove(0)
    }

    pub(crate) async fn try_once(&self, buyer: &Buyer, attempt: &str) -> AnswerKind {
        self.crowd.try_once(buyer, attempt, None).await.unwrap()
    }

    /// Applies an operator's change, which must be confirmed.
    pub(crate) async fn change_sale(&self, change: Change) {
        let operator = Operator::new(self.stack.clone(), self.crowd.journal().clone());
        assert!(operator.apply("flash", change).await.unwrap(), "{change:?} was not confirmed");
    }

    /// Retries an attempt until its answer is definite.
    pub(crate) async fn retry_until_definite(&self, buyer: &Buyer, attempt: &str) {
        let settled = async || self.try_once(buyer, attempt).await.is_definite();
        until("a definite answer", STEP_LIMIT, settled).await.unwrap();
    }

    /// Lets buyers with this home shard buy all its units.
    pub(crate) async fn sell_out_shard(&self, shard: u16) {
        let units = self.crowd.sale().split(UNITS)[usize::from(shard)];
        self.buy_at(shard, units as usize).await;
    }

    /// Lets `count` new buyers with this home shard buy.
    pub(crate) async fn buy_at(&self, shard: u16, count: usize) {
        let buyers = self.crowd.new_buyers_at(ShardId::new(shard), count);
        self.crowd.buy_all(buyers, None, STEP_LIMIT).await.unwrap();
    }

    /// Returns the problems that the coordinator reports for the sale.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let coordinators = self.stack.coordinators();
        let sale = read_json(self.stack.admin().get(coordinators[0].url(), "sales/flash")).await;
        let sale: serde_json::Value = sale.unwrap_or_default();
        let problems = sale["problems"].as_array().into_iter().flatten();
        problems.filter_map(|problem| problem.as_str().map(str::to_owned)).collect()
    }

    /// Returns the violations found for users of all home shards but this one.
    pub(crate) async fn violations_outside(&self, lost: u16) -> Vec<String> {
        let mut records = read(self.crowd.journal().path()).unwrap();
        records.retain(|record| !matches!(record, JournalEntry::Invoked(invoked) if invoked.shard == lost));
        let claims =
            read_claims(&connect(self.stack.redis()).await.unwrap(), self.crowd.sale()).await.unwrap();
        let end = FinalState { claims, total: UNITS, shards: Vec::new() };
        violations(&records, &end).into_iter().map(|found| format!("{found:?}")).collect()
    }

    /// Returns primary and replica of a shard.
    pub(crate) async fn pair_of(&self, shard: u16) -> (SocketAddr, SocketAddr) {
        let redis = self.stack.redis();
        let primary = redis.primary_of(self.shard(shard).slot).await.unwrap();
        (primary, redis.replicas_of(primary).await[0])
    }

    /// Stops replication to this replica: freezes it, and closes its connection so that no writes wait in it.
    pub(crate) async fn stop_replication(&self, (primary, replica): (SocketAddr, SocketAddr)) {
        self.stack.redis().freeze(replica);
        let mut connection = self.stack.redis().connection(primary).await.unwrap();
        let mut kill = cmd("CLIENT");
        let killed: u64 =
            kill.arg("KILL").arg("TYPE").arg("replica").query_async(&mut connection).await.unwrap();
        assert_eq!(killed, 1, "{primary} had another number of replicas");
    }

    /// Kills the primary, waits until its replica is promoted, and restarts the old primary as a replica.
    pub(crate) async fn fail_over(&self, (primary, replica): (SocketAddr, SocketAddr)) {
        self.stack.redis().kill(primary);
        self.stack.redis().thaw(replica);
        self.stack.redis().wait_until_promoted(replica).await.unwrap();
        self.stack.redis().restart(primary).await.unwrap();
    }

    /// Returns the shard whose tokens this shard accepted, or else the first that donated any. A donation that comes too
    /// late for the buyer stays in its channel, and the buyer gets the tokens of another donor.
    pub(crate) async fn donor_of(&self, receiver: u16) -> u16 {
        let cluster = connect(self.stack.redis()).await.unwrap();
        let levels = read_levels(&cluster, self.crowd.sale()).await;
        let accepted = levels[usize::from(receiver)].as_ref().unwrap();
        let accepted = accepted.accepted.iter().find_map(|(source, tokens)| match source {
            TokenSource::Shard(donor) if *tokens > 0 => Some(donor.index()),
            _ => None,
        });
        let donated = |level: &Result<stock::calls::Level, _>| {
            level.as_ref().is_ok_and(|level| level.donated.iter().any(|(_, tokens)| *tokens > 0))
        };
        accepted.or_else(|| levels.iter().position(donated)).expect("no shard donated tokens") as u16
    }

    /// Sells the rest, once the cluster is healthy, and returns the findings of the audit.
    pub(crate) async fn audit_findings(self) -> Vec<String> {
        self.stack.redis().wait_until_whole().await.unwrap();
        self.crowd.sell_out(STEP_LIMIT).await.unwrap();
        let records = read(self.crowd.journal().path()).unwrap();
        audit(&self.stack, self.crowd.sale(), &records).await.unwrap()
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
        // Without rebalancing, tokens move only when a buyer needs them, so the tests control when.
        coordinator_environment: vec![("REBALANCE_PERIOD".into(), "0s".into())],
        ..StackOptions::default()
    }
}

/// Returns the same programs with and without protections. The environment selects which one is missing.
fn programs() -> Programs {
    let coordinator = binary("flashsale-coordinator").unwrap();
    Programs { node: sabotaged_node(), coordinator, ledger: None }
}

pub(crate) fn sabotaged_node() -> PathBuf {
    let profile = BuildProfile::of_this_program().unwrap();
    profile.build_with("flashsale-node-sabotaged", "node/sabotage").unwrap()
}

#[track_caller]
pub(crate) fn assert_clean(audit_findings: &[String]) {
    assert!(audit_findings.is_empty(), "{}", audit_findings.join("\n"));
}

#[track_caller]
pub(crate) fn assert_reports(audit_findings: &[String], violation: &str) {
    let named = audit_findings.iter().any(|found| found.contains(violation));
    assert!(named, "no finding has {violation:?} in:\n{}", audit_findings.join("\n"));
}
