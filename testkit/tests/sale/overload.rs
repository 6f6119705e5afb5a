//! More buyers than Redis can serve: those who are let in are served soon, the others are told at once to come back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use testkit::procfs::resident_bytes;
use testkit::stack::SaleOptions;
use testkit::{BuyerResult, OpenLoop, RedisCluster, StackOptions};
use tokio::time::{Instant, sleep};

use crate::actors::{OpenSale, sale_of};

/// Nobody is refused for want of stock.
const UNITS: u64 = 2_000_000;
/// The replica works this long of each [`REPLICA_TURN`], and all buyers live on its primary: so a pipeline takes that
/// long, on a fast machine and on a busy one.
const REPLICA_WORK: Duration = Duration::from_millis(10);
const REPLICA_TURN: Duration = Duration::from_millis(200);
/// As many at a time as can be in a queue of every lane.
const CONNECTIONS: usize = 4_000;
/// Whoever asks shares the cores, and has to be able to ask for four times the last of these.
const RATES: [u32; 2] = [1_000, 2_000];
const SATURATION: Duration = Duration::from_secs(4);
const OVERLOAD: Duration = Duration::from_secs(8);
/// This machine is shared, and what others do on it only makes the figures worse: the best of so many tries counts.
const TRIES: usize = 3;
/// The best that was found must be held to this extent.
const GOODPUT_MIN: f64 = 0.85;
const ADMITTED_P99_MAX: Duration = Duration::from_secs(1);
const REFUSED_P99_MAX: Duration = Duration::from_millis(100);
/// Connections and queues fill up once; what is let in holds some hundred bytes for less than a second.
const MEMORY_GROWTH_MAX: f64 = 1.3;

#[tokio::test(flavor = "multi_thread")]
async fn offered_four_times_what_redis_can_take_a_node_sells_on_and_sheds_the_rest() {
    // Given a node whose barriers take long, and the most it sells when asked for ever more.
    let one_shard = SaleOptions { shards: Some(1), ..sale_of(UNITS) };
    let options = StackOptions { nodes: 1, sale: one_shard, ..StackOptions::default() };
    let sale = Arc::new(OpenSale::with(options).await);
    let node = sale.stack.nodes()[0].clone();
    let slowing = tokio::spawn(slow_down(Arc::clone(&sale)));
    let crowd = |name: &str, rate: u32, duration| OpenLoop {
        addr: node.url().strip_prefix("http://").unwrap().parse().unwrap(),
        host: "sale".into(),
        path: "/api/sale/purchase".into(),
        users: name.to_owned(),
        rate,
        duration,
        connections: CONNECTIONS,
    };
    let mut best = 0.0_f64;
    for rate in RATES {
        let shots = crowd(&format!("warm-{rate}"), rate, SATURATION).run().await.unwrap();
        best = best.max(Crowd::of(&shots).goodput(SATURATION));
    }

    let mut fallen_short = Vec::new();
    for n in 1..=TRIES {
        // When four times that is asked of it.
        let memory = resident_bytes(node.process().pid()).unwrap();
        let health = tokio::spawn(watch_health(node.ops_url().to_owned(), OVERLOAD));
        let rate = (4.0 * best) as u32;
        let shots = crowd(&format!("rush-{n}"), rate, OVERLOAD).run().await.unwrap();
        let (crowd, red) = (Crowd::of(&shots), health.await.unwrap());
        let grown = resident_bytes(node.process().pid()).unwrap() as f64 / memory as f64;
        println!(
            "best {best:.0}/s; offered {rate}/s: {crowd}; memory {:.0} MB, x {grown:.2}",
            memory as f64 / 1e6
        );

        // Then it sells nearly as much, soon; the others know soon, too; and it is well.
        assert_eq!(crowd.others, 0, "some were told something else, or nothing");
        assert!(crowd.refused.iter().all(|shot| shot.retry_after), "a 503 says when to come back");
        fallen_short = crowd.shortcomings(best);
        fallen_short.extend((grown > MEMORY_GROWTH_MAX).then(|| format!("its memory grew {grown:.2} times")));
        fallen_short.extend((red > 0).then(|| format!("its health was red {red} times")));
        if fallen_short.is_empty() {
            break;
        }
    }
    slowing.abort();
    assert!(fallen_short.is_empty(), "{fallen_short:?}");
}

/// What a crowd met, by what it was told.
struct Crowd<'a> {
    admitted: Vec<&'a BuyerResult>,
    refused: Vec<&'a BuyerResult>,
    others: usize,
}

impl<'a> Crowd<'a> {
    fn of(shots: &'a [BuyerResult]) -> Self {
        let told = |status: u16| shots.iter().filter(move |shot| shot.status == Some(status)).collect();
        let (admitted, refused): (Vec<_>, Vec<_>) = (told(200), told(503));
        let others = shots.len() - admitted.len() - refused.len();
        Self { admitted, refused, others }
    }

    fn shortcomings(&self, best: f64) -> Vec<String> {
        let (goodput, admitted, refused) = (self.goodput(OVERLOAD), p99(&self.admitted), p99(&self.refused));
        let mut shortcomings = Vec::new();
        if goodput < GOODPUT_MIN * best {
            shortcomings.push(format!("it sold {goodput:.0}/s, and {best:.0}/s when asked for less"));
        }
        if admitted > ADMITTED_P99_MAX {
            shortcomings.push(format!("buyers waited {admitted:?}"));
        }
        if refused > REFUSED_P99_MAX {
            shortcomings.push(format!("those sent away waited {refused:?}"));
        }
        shortcomings
    }

    fn goodput(&self, duration: Duration) -> f64 {
        self.admitted.len() as f64 / duration.as_secs_f64()
    }
}

impl fmt::Display for Crowd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sold, sent_away) = (self.admitted.len(), self.refused.len());
        write!(f, "sold {:.0}/s, {sold} with p99 {:.1?}; ", self.goodput(OVERLOAD), p99(&self.admitted))?;
        write!(f, "{sent_away} sent away with p99 {:.1?}", p99(&self.refused))
    }
}

fn p99(shots: &[&BuyerResult]) -> Duration {
    let mut latencies: Vec<Duration> = shots.iter().map(|shot| shot.latency).collect();
    latencies.sort_unstable();
    latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default()
}

/// Lets the replicas work only a part of the time, until it is aborted.
async fn slow_down(sale: Arc<OpenSale>) {
    /// Whatever happens, they are left running.
    struct Thawed<'a>(&'a RedisCluster, Vec<std::net::SocketAddr>);
    impl Drop for Thawed<'_> {
        fn drop(&mut self) {
            self.1.iter().for_each(|&replica| self.0.thaw(replica));
        }
    }
    let redis = sale.stack.redis();
    let replicas = Thawed(redis, redis.replicas().await);
    loop {
        replicas.1.iter().for_each(|&replica| redis.freeze(replica));
        sleep(REPLICA_TURN - REPLICA_WORK).await;
        replicas.1.iter().for_each(|&replica| redis.thaw(replica));
        sleep(REPLICA_WORK).await;
    }
}

/// How often health or readiness was not green.
async fn watch_health(ops_url: String, duration: Duration) -> usize {
    let (client, began, mut red) = (Client::new(), Instant::now(), 0);
    while began.elapsed() < duration {
        for path in ["healthz", "readyz"] {
            let answer = client.get(format!("{ops_url}/{path}")).timeout(Duration::from_secs(1)).send().await;
            red += usize::from(!answer.is_ok_and(|answer| answer.status().is_success()));
        }
        sleep(Duration::from_millis(100)).await;
    }
    red
}
