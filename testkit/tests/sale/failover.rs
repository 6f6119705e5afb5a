//! A primary dies or freezes while a crowd buys: its own buyers wait, the others notice nothing, and nobody is
//! told anything that is not so.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::Value;
use redis::aio::MultiplexedConnection;
use stock::ids::{ShardId, UserId, UserIdKind};
use testkit::{BuyerAnswer, Buyers, PurchaseAttempt, StackOptions, until};
use tokio::task::JoinSet;

use crate::actors::{OpenSale, assert_all_definite, connect, purchases, sale_of, tally};

/// From one buyer to the next: 250 a second.
const PACE: Duration = Duration::from_millis(4);
/// Before the fault, for a picture of quiet times.
const QUIET: Duration = Duration::from_secs(2);
/// Buyers go on coming for this long after the fault.
const AFTERMATH: Duration = Duration::from_secs(6);
/// Noticing a dead primary takes its timeout of 1 s, the election about as long again. This machine is shared with
/// everything else: what is usual stands in `docs/performance.md`, this is where something is wrong.
const OUTAGE_MAX: Duration = Duration::from_secs(6);
/// How soon a node sells again once the replica leads.
const RECOVERY_MAX: Duration = Duration::from_secs(1);
/// How soon the last of those who waited is served then. A reply that nobody gives up would be waited for far longer.
const WAITING_MAX: Duration = Duration::from_secs(4);
/// The others' 99th percentile may double; on top of a few milliseconds that leaves room for a busy machine.
const P99_SLACK: Duration = Duration::from_millis(100);
/// How long somebody keeps trying.
const PERSISTENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_costs_its_own_buyers_seconds_and_the_others_nothing() {
    let sale =
        OpenSale::with(StackOptions { nodes: 1, sale: sale_of(5_000), ..StackOptions::default() }).await;
    let story = Story::of(&sale, |victim| sale.stack.redis().kill(victim)).await;

    story.assert_told("killed");
    sale.stack.redis().restart(story.victim).await.unwrap();
    sale.stack.redis().wait_until_whole().await.unwrap();
    story.assert_true(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_is_given_up_and_may_come_back() {
    let sale =
        OpenSale::with(StackOptions { nodes: 1, sale: sale_of(5_000), ..StackOptions::default() }).await;
    let story = Story::of(&sale, |victim| sale.stack.redis().freeze(victim)).await;

    // It still believes that it leads, and finds out: nobody is told what it says.
    sale.stack.redis().thaw(story.victim);
    story.assert_told("frozen");
    sale.stack.redis().wait_until_whole().await.unwrap();
    story.assert_true(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_gives_its_pipeline_up_when_the_primary_is_demoted() {
    // Given nodes that would wait long for a reply, and a primary that stands still with their pipelines.
    let long = |setting: &str| (setting.to_owned(), "14s".to_owned());
    let node_environment = vec![long("REDIS_RESPONSE_TIMEOUT"), long("PURCHASE_TIMEOUT")];
    let options =
        StackOptions { nodes: 1, sale: sale_of(5_000), node_environment, ..StackOptions::default() };
    let sale = OpenSale::with(options).await;
    let story = Story::of(&sale, |victim| sale.stack.redis().freeze(victim)).await;

    // Then buyers are served as soon as its replica leads.
    sale.stack.redis().thaw(story.victim);
    story.assert_told("frozen, with a long wait for replies");
    story.assert_waiting_ended();
    sale.stack.redis().wait_until_whole().await.unwrap();
    story.assert_true(&sale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_primary_sells_alone_until_it_has_a_replica_again() {
    // Given a shard whose primary died: its only replica leads, and has none of its own.
    let sale = OpenSale::with(StackOptions { nodes: 1, sale: sale_of(200), ..StackOptions::default() }).await;
    let redis = sale.stack.redis();
    let (old, promoted) = primary_and_replica(&sale, ShardId::new(0)).await;
    redis.kill(old);
    until("a promotion", OUTAGE_MAX, async || redis.primaries().await.contains(&promoted)).await.unwrap();

    // Then its buyers buy.
    let node = sale.stack.nodes()[0].url().to_owned();
    let mut users = crate::actors::users_at_home_in(&sale.sale, ShardId::new(0), 3).into_iter();
    let mut wish = || vec![PurchaseAttempt { user: users.next().unwrap(), base_url: node.clone() }];
    let alone = Buyers::new(1).buy_persistently(wish(), PERSISTENCE).await;
    assert!(alone[0].is_purchased(), "{alone:?}");

    // And when the old one has joined as its replica, it is waited for.
    redis.restart(old).await.unwrap();
    redis.wait_until_whole().await.unwrap();
    redis.freeze(old);
    let unconfirmed = Buyers::new(1).buy(wish()).await;
    assert_eq!(unconfirmed[0].status, Some(503), "{unconfirmed:?}");
    redis.thaw(old);
    let confirmed = Buyers::new(1).buy_persistently(wish(), PERSISTENCE).await;
    assert!(confirmed[0].is_purchased(), "{confirmed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_redis_dies_at_once_and_the_sale_goes_on_by_itself() {
    // Given a sale with purchases all over it.
    let sale = OpenSale::with(StackOptions { nodes: 1, sale: sale_of(600), ..StackOptions::default() }).await;
    let node = sale.stack.nodes()[0].url().to_owned();
    let wishes = |from: usize, to: usize| -> Vec<PurchaseAttempt> {
        (from..to)
            .map(|n| PurchaseAttempt { user: format!("buyer-{n:04}"), base_url: node.clone() })
            .collect()
    };
    let mut answers = Buyers::new(32).buy(wishes(0, 300)).await;
    assert_eq!(purchases(&answers).len(), 300);

    // When all servers die in the middle of it and are started again, and nothing else is done.
    let buying = tokio::spawn({
        let wishes = wishes(300, 700);
        async move { Buyers::new(16).buy_persistently(wishes, PERSISTENCE).await }
    });
    let redis = sale.stack.redis();
    let servers: Vec<SocketAddr> = redis.servers().await.iter().map(|server| server.addr).collect();
    servers.iter().for_each(|&server| redis.kill(server));
    for &server in &servers {
        redis.restart(server).await.unwrap();
    }

    // Then what was told is still so, and the rest is sold.
    answers.extend(buying.await.unwrap());
    assert_all_definite(&answers);
    redis.wait_until_whole().await.unwrap();
    sale.assert_sold_out(&answers).await;
}

/// What buyers met around a fault of one primary.
struct Story {
    victim: SocketAddr,
    shots: Vec<BuyerResult>,
    fault_at: Instant,
    promoted_at: Instant,
}

/// One buyer's purchase, tried until it was definite.
struct BuyerResult {
    /// At home on the victim.
    affected: bool,
    sent: Instant,
    answer: BuyerAnswer,
}

impl BuyerResult {
    fn answered(&self) -> Instant {
        self.sent + self.answer.latency
    }
}

impl Story {
    /// Buyers come at a steady pace; after a quiet time the primary of the first shard is harmed.
    async fn of(sale: &OpenSale, harm: impl Fn(SocketAddr)) -> Self {
        let (victim, heir) = primary_and_replica(sale, ShardId::new(0)).await;
        let node = sale.stack.nodes()[0].url().to_owned();
        let cluster = connect(&sale.stack).await;
        let lives_on_victim = |user: &str| {
            let home = sale.sale.ring().home(&UserId::parse(user, UserIdKind::Opaque).unwrap());
            let primary = cluster.topology().primary(sale.sale.shard(home).slot).unwrap().address.to_string();
            primary == victim.to_string()
        };
        let (buyers, mut shooting) = (Buyers::new(1), JoinSet::new());
        let (began, mut pace) = (Instant::now(), tokio::time::interval(PACE));
        let mut fault_at = None;
        let promotion = tokio::spawn(promotion_of(sale.stack.redis().connection(heir).await.unwrap()));
        for n in 0.. {
            let now = pace.tick().await.into_std();
            if fault_at.is_none() && now - began > QUIET {
                harm(victim);
                fault_at = Some(Instant::now());
            }
            if fault_at.is_some_and(|at| now - at > AFTERMATH) {
                break;
            }
            let user = format!("buyer-{n:06}");
            let (affected, buyers) = (lives_on_victim(&user), buyers.clone());
            let wish = vec![PurchaseAttempt { user, base_url: node.clone() }];
            shooting.spawn(async move {
                let sent = Instant::now();
                let answer = buyers.buy_persistently(wish, PERSISTENCE).await.remove(0);
                BuyerResult { affected, sent, answer }
            });
        }
        let fault_at = fault_at.expect("the loop ends after the fault");
        let promoted_at = promotion.await.unwrap();
        Self { victim, shots: shooting.join_all().await, fault_at, promoted_at }
    }

    fn assert_told(&self, what: &str) {
        let answers: Vec<BuyerAnswer> = self.shots.iter().map(|shot| shot.answer.clone()).collect();
        assert!(answers.iter().all(BuyerAnswer::is_purchased), "buyers were told {:?}", tally(&answers));

        let (affected, others): (Vec<&BuyerResult>, Vec<&BuyerResult>) =
            self.shots.iter().partition(|shot| shot.affected);
        let (before, after): (Vec<&BuyerResult>, Vec<&BuyerResult>) =
            others.into_iter().partition(|shot| shot.answered() < self.fault_at);
        let (quiet, meanwhile) = (p99(&before), p99(&after));
        // What was under way when it happened still got its answer.
        let under_way = self.fault_at + Duration::from_millis(100);
        let first_after = affected.iter().map(|shot| shot.answered()).filter(|&at| at > under_way).min();
        let first_after = first_after.expect("its buyers bought again");
        let (outage, recovery) =
            (first_after - self.fault_at, first_after.saturating_duration_since(self.promoted_at));
        println!(
            "{what}: outage {outage:.2?}, of it {recovery:.2?} after the promotion; {} affected buyers; the \
             others' p99 {meanwhile:.2?}, in quiet times {quiet:.2?}",
            affected.iter().filter(|shot| shot.answer.latency > Duration::from_millis(500)).count()
        );
        assert!(after.iter().all(|shot| shot.answer.tries == 1), "others were sent away");
        assert!(meanwhile <= 2 * quiet + P99_SLACK, "others waited {meanwhile:?}, before {quiet:?}");
        assert!(recovery <= RECOVERY_MAX, "the node sold again {recovery:?} after the promotion");
        assert!(outage <= OUTAGE_MAX, "the shards were away for {outage:?}");
    }

    /// Who waited for the old primary when another one took over was served then.
    fn assert_waiting_ended(&self) {
        let waiting = self.shots.iter().filter(|shot| shot.affected && shot.sent < self.promoted_at);
        let last = waiting.map(BuyerResult::answered).max().expect("somebody waited");
        let waited = last.saturating_duration_since(self.promoted_at);
        assert!(waited <= WAITING_MAX, "a buyer waited for {waited:?} after the promotion");
    }

    /// Whatever was told is in the books.
    async fn assert_true(&self, sale: &OpenSale) {
        let audit = sale.stack.audit("flash").await.unwrap();
        assert!(audit.ok, "{:?}", audit.violations);
        assert_eq!(audit.claims, self.shots.len() as u64, "each buyer was told of a purchase");
    }
}

fn p99(shots: &[&BuyerResult]) -> Duration {
    let mut latencies: Vec<Duration> = shots.iter().map(|shot| shot.answer.latency).collect();
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

/// When this replica leads.
async fn promotion_of(mut replica: MultiplexedConnection) -> Instant {
    let mut leads = async || {
        let role: Value = redis::cmd("ROLE").query_async(&mut replica).await.unwrap();
        matches!(role.as_sequence(), Some([Value::BulkString(role), ..]) if role == b"master")
    };
    while !leads().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Instant::now()
}

pub(crate) async fn primary_and_replica(sale: &OpenSale, shard: ShardId) -> (SocketAddr, SocketAddr) {
    let topology = sale.cluster.topology();
    let primary = topology.primary(sale.sale.shard(shard).slot).expect("every slot is served");
    let primary: SocketAddr = primary.address.to_string().parse().expect("the cluster is known by numbers");
    (primary, sale.stack.redis().replicas_of(primary).await[0])
}
