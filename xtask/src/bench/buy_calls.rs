//! `FCALL buy` without a node: CPU time of Redis for each buyer, by the number of buyers in a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rediscluster::Cluster;
use serde::Serialize;
use stock::calls::{Attempt, BUYERS_PER_CALL_MAX, Buy, BuyOutcome};
use stock::ids::{OrderId, UserId, UserIdKind};
use stock::sale::Sale;
use testkit::stack::{Programs, SaleOptions};
use testkit::{Stack, StackOptions};
use tokio::task::JoinSet;

use super::comparison::Spread;
use super::field::SHARDS;
use super::filling::sale_of;
use super::meter::{CpuTime, Meter};

const BATCHES: [usize; 3] = [1, 16, BUYERS_PER_CALL_MAX];
const STOCK: u64 = 100_000_000;
/// Length of each measurement.
const LENGTH: Duration = Duration::from_secs(2);

/// The figures of one measurement.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallSample {
    batch: usize,
    round: u32,
    buyers: f64,
    buyers_per_second: f64,
    /// CPU time of a buyer in microseconds.
    cpu_us: CpuTime,
}

/// Time that all rounds take.
pub(super) fn length(rounds: u32) -> Duration {
    LENGTH * u32::try_from(BATCHES.len()).unwrap_or(u32::MAX) * rounds + Duration::from_secs(5)
}

/// Buys in all shards at once, one call at a time in each shard, without a barrier.
pub(super) async fn measure(programs: &Programs, rounds: u32) -> Result<Vec<CallSample>> {
    let sale = SaleOptions { total_stock: STOCK, shards: Some(SHARDS), ..SaleOptions::default() };
    let programs = Some(programs.clone());
    let stack =
        Stack::start(StackOptions { nodes: 1, programs, sale, ..StackOptions::default() }, |_| ()).await?;
    let (cluster, sale) = sale_of(&stack).await?;
    let meter = Meter::of_stack(&stack, Vec::new()).await;
    let (cluster, sale, users) = (Arc::new(cluster), Arc::new(sale), Arc::new(AtomicU64::new(0)));
    let mut samples = Vec::new();
    for round in 0..rounds {
        for batch in BATCHES {
            let (began, before, first) = (Instant::now(), meter.read(), users.load(Ordering::Relaxed));
            let mut buying = JoinSet::new();
            for shard in 0..sale.shards().len() {
                let (cluster, sale, users) = (cluster.clone(), sale.clone(), users.clone());
                buying.spawn(async move { buy(&cluster, &sale, shard, batch, &users, began + LENGTH).await });
            }
            while let Some(bought) = buying.join_next().await {
                bought??;
            }
            let (took, buyers) = (began.elapsed(), (users.load(Ordering::Relaxed) - first) as f64);
            let cpu_us = meter.read().since(before, buyers);
            let buyers_per_second = buyers / took.as_secs_f64();
            samples.push(CallSample { batch, round, buyers, buyers_per_second, cpu_us });
        }
    }
    stack.stop().await?;
    Ok(samples)
}

/// Buys in one shard until this time. The users are not at home there, which a shard cannot know.
async fn buy(
    cluster: &Cluster,
    sale: &Sale,
    shard: usize,
    batch: usize,
    users: &AtomicU64,
    until: Instant,
) -> Result<()> {
    let shard = sale.shards().get(shard).context("the sale has this shard")?;
    while Instant::now() < until {
        let first = users.fetch_add(batch as u64, Ordering::Relaxed);
        let attempts: Vec<Attempt> = (first..).take(batch).map(attempt).collect::<Result<_>>()?;
        let answer = cluster.read(Buy { shard, attempts: &attempts, not_after: Buy::AT_ANY_TIME }).await?;
        let all = answer
            .outcomes
            .iter()
            .all(|outcome| matches!(outcome, BuyOutcome::Bought(_) | BuyOutcome::Repeat(_)));
        ensure!(all, "a shard did not sell: {:?}", answer.outcomes);
    }
    Ok(())
}

fn attempt(number: u64) -> Result<Attempt> {
    let user = UserId::parse(&format!("buyer-{number:019}"), UserIdKind::Opaque)?;
    Ok(Attempt { user, order: OrderId::random(), correlation: "trace".into() })
}

/// Prints the rows: buyers a second, and CPU time of a buyer.
pub(super) fn say_rows(samples: &[CallSample]) {
    if samples.is_empty() {
        return;
    }
    say!("`FCALL buy` without a node and without a barrier, one call at a time in each of {SHARDS} shards:");
    for batch in BATCHES {
        let spread = |figure: fn(&CallSample) -> f64| {
            Spread::of(samples.iter().filter(|sample| sample.batch == batch).map(figure))
        };
        let rate = spread(|sample| sample.buyers_per_second).map_or(0.0, |spread| spread.median);
        say!(
            "{batch:4} buyers a call {rate:9.0} buyers/s; CPU us a buyer: primaries {}, replicas {}",
            Spread::text(spread(|sample| sample.cpu_us.primaries)),
            Spread::text(spread(|sample| sample.cpu_us.replicas)),
        );
    }
}
