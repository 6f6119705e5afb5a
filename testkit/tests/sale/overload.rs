//! More buyers than Redis can serve: admitted buyers are served soon, and the others get a 503 at once.
//!
//! Replicas work in turns, and all buyers use one primary, so a pipeline takes about one turn. Throughput and waits are
//! counted in turns, which take longer on a busy machine, as everything else does.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{InfoDict, cmd};
use reqwest::Client;
use stock::ids::ShardId;
use testkit::procfs::peak_resident_bytes;
use testkit::stack::SaleOptions;
use testkit::{BuyerResult, OpenLoop, StackOptions};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fixture::{OpenSale, percentile, sale_options};

/// More units than are sold, so that stock never limits.
const UNITS: u64 = 2_000_000;
/// Time between two turns, in which the replica is frozen.
const REPLICA_PAUSE: Duration = Duration::from_millis(195);
/// As many as the queues of all lanes can hold.
const CONNECTIONS: usize = 4_000;
/// Requests per second that are within the capacity. The load generator shares the cores and must reach four times
/// as many.
const RATE: u32 = 2_000;
const SATURATION: Duration = Duration::from_secs(4);
const OVERLOAD: Duration = Duration::from_secs(8);
/// Minimum goodput under overload, as a fraction of the one before.
const GOODPUT_MIN: f64 = 0.85;
/// Maximum wait of 99 % of the admitted buyers: about a second.
const ADMITTED_TURNS_MAX: usize = 5;
/// Maximum wait of 99 % of the refused buyers. A turn begins meanwhile, at most; a pipeline would take another one.
const REFUSED_TURNS_MAX: usize = 1;
const REFUSED_MEDIAN_MAX: Duration = Duration::from_millis(100);
/// Maximum growth of the peak memory once connections and queues were full. An admitted request holds some hundred bytes for
/// less than a second.
const MEMORY_GROWTH_MAX: f64 = 1.3;

#[tokio::test(flavor = "multi_thread")]
async fn node_sheds_load_at_four_times_capacity() {
    // Given a node with slow barriers, its throughput, and full queues.
    let one_shard = SaleOptions { shards: Some(1), ..sale_options(UNITS) };
    let options = StackOptions { nodes: 1, sale: one_shard, ..StackOptions::default() };
    let sale = Arc::new(OpenSale::start_with(options).await);
    let node = sale.stack.nodes()[0].clone();
    let turns = ReplicaTurns::start(&sale).await;
    let crowd = async |name: &str, rate: u32, duration| {
        let load = OpenLoop {
            addr: node.url().strip_prefix("http://").unwrap().parse().unwrap(),
            host: "sale".into(),
            path: "/api/sale/purchase".into(),
            users: name.to_owned(),
            rate,
            duration,
            connections: CONNECTIONS,
        };
        let began = Instant::now();
        let results = load.run().await.unwrap();
        LoadResult::of(&results, &turns, began)
    };
    let before = crowd("warm", RATE, SATURATION).await;
    let rate = (4 * before.admitted.len()) as u32 / SATURATION.as_secs() as u32;
    crowd("fill", rate, SATURATION).await;

    // When four times that is offered.
    let memory = peak_resident_bytes(node.process().pid()).unwrap();
    let mut health = JoinSet::new();
    health.spawn(watch_health(node.ops_url().to_owned()));
    let crowd = crowd("rush", rate, OVERLOAD).await;
    let growth = peak_resident_bytes(node.process().pid()).unwrap() as f64 / memory as f64;
    println!(
        "before: {before}\noffered {rate}/s: {crowd}; peak memory {:.0} MB, x {growth:.2}",
        memory as f64 / 1e6
    );

    // Then it sells nearly as much without long waits, refuses the rest at once, and stays healthy.
    assert_eq!(crowd.others, 0, "an answer is neither 200 nor 503 with Retry-After, or is missing");
    assert!(crowd.goodput() >= GOODPUT_MIN * before.goodput(), "it sold less than under less load");
    assert!(percentile(99, crowd.admitted.iter().copied()) <= ADMITTED_TURNS_MAX, "admitted buyers waited");
    assert!(percentile(99, crowd.refused.iter().copied()) <= REFUSED_TURNS_MAX, "refused buyers waited");
    assert!(
        percentile(50, crowd.refused_after.iter().copied()) <= REFUSED_MEDIAN_MAX,
        "refused buyers waited"
    );
    assert!(growth <= MEMORY_GROWTH_MAX, "its peak memory grew");
    assert!(health.try_join_next().is_none(), "a health check failed");
}

/// The results of a load: waits in turns, by answer.
#[derive(Default)]
struct LoadResult {
    admitted: Vec<usize>,
    refused: Vec<usize>,
    /// The latencies of refused buyers.
    refused_after: Vec<Duration>,
    others: usize,
    turns: usize,
}

impl LoadResult {
    fn of(results: &[BuyerResult], turns: &ReplicaTurns, began: Instant) -> Self {
        let mut sums = Self { turns: turns.between(began, Instant::now()), ..Self::default() };
        for result in results {
            let answered_at = result.sent + result.service_time;
            let waited = turns.between(answered_at - result.latency, answered_at);
            match (result.answer.status, result.answer.retry_after) {
                (Some(200), _) => sums.admitted.push(waited),
                (Some(503), Some(_)) => {
                    sums.refused.push(waited);
                    sums.refused_after.push(result.latency);
                }
                _ => sums.others += 1,
            }
        }
        sums
    }

    /// Units sold per turn.
    fn goodput(&self) -> f64 {
        self.admitted.len() as f64 / self.turns as f64
    }
}

impl fmt::Display for LoadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { admitted, refused, refused_after, turns, .. } = self;
        write!(
            f,
            "sold {} in {turns} turns, p99 {} turns; ",
            admitted.len(),
            percentile(99, admitted.iter().copied())
        )?;
        let (p99, median) =
            (percentile(99, refused.iter().copied()), percentile(50, refused_after.iter().copied()));
        write!(f, "refused {}, p99 {p99} turns, half in {median:.1?}", refused.len())
    }
}

/// Lets the replica of the sale's primary run only part of the time.
struct ReplicaTurns {
    began: Arc<Mutex<Vec<Instant>>>,
    _throttling: JoinSet<()>,
}

impl ReplicaTurns {
    async fn start(sale: &Arc<OpenSale>) -> Self {
        let (began, mut throttling) = (Arc::default(), JoinSet::new());
        let (primary, replica) = sale.primary_and_replica(ShardId::new(0)).await;
        throttling.spawn(throttle(Arc::clone(sale), primary, replica, Arc::clone(&began)));
        Self { began, _throttling: throttling }
    }

    /// Counts the turns that began in this time.
    fn between(&self, from: Instant, to: Instant) -> usize {
        let began = self.began.lock().unwrap();
        began.partition_point(|turn| *turn <= to) - began.partition_point(|turn| *turn <= from)
    }
}

/// A turn lasts until the replica has all that its primary had written before.
async fn throttle(
    sale: Arc<OpenSale>,
    primary: SocketAddr,
    replica: SocketAddr,
    began: Arc<Mutex<Vec<Instant>>>,
) {
    let redis = sale.stack.redis();
    let mut connections =
        [redis.connection(primary).await.unwrap(), redis.connection(replica).await.unwrap()];
    let [at_primary, at_replica] = &mut connections;
    loop {
        redis.freeze(replica);
        sleep(REPLICA_PAUSE).await;
        let written = offset(at_primary).await;
        began.lock().unwrap().push(Instant::now());
        redis.thaw(replica);
        while offset(at_replica).await < written {}
    }
}

async fn offset(connection: &mut MultiplexedConnection) -> u64 {
    let info: InfoDict = cmd("INFO").arg("replication").query_async(connection).await.unwrap();
    info.get("master_repl_offset").unwrap()
}

/// Checks health and readiness, until a check fails.
async fn watch_health(ops_url: String) {
    let client = Client::builder().timeout(OVERLOAD).build().unwrap();
    loop {
        for path in ["healthz", "readyz"] {
            let answer = client.get(format!("{ops_url}/{path}")).send().await;
            if !answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                return println!("{path}: {answer:?}");
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}
