//! Memory benchmark: Redis memory per sold unit.

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Cluster, Slot};
use stock::layout::Shard;
use stock::sale::Sale;
use testkit::stack::SaleOptions;
use testkit::{Stack, StackOptions};

use super::filling::{sale_of, sell};
use crate::install;

const SHARDS: u32 = 12;
/// Buyers per order entry: one buyer, the typical batch of a loaded node with 12 shards, and the maximum.
const BATCHES: [usize; 3] = [1, 16, 64];

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// Units to sell before measuring.
    #[arg(long, default_value_t = 200_000)]
    units: u64,
}

pub(crate) async fn bench(options: Options) -> Result<()> {
    install::ensure_installed(&[install::REDIS, install::NGINX])?;
    say!("Redis memory a unit sold, {} units on {SHARDS} shards, user ids of 25 characters,", options.units);
    say!("order and correlation ids of 14 (MEMORY USAGE of claims and orders, one replica's copy):\n");
    say!("{:>15}  {:>8} {:>8} {:>8}", "buyers an entry", "claims", "orders", "bytes");
    for batch in BATCHES {
        measure(options.units, batch).await?;
    }
    Ok(())
}

async fn measure(units: u64, batch: usize) -> Result<()> {
    let sale = SaleOptions { total_stock: units, shards: Some(SHARDS), ..SaleOptions::default() };
    let stack = Stack::start(StackOptions { nodes: 1, sale, ..StackOptions::default() }, |_| ()).await?;
    let (cluster, sale) = sale_of(&stack).await?;
    sell(&cluster, &sale, units, batch).await?;

    let audit = stack.audit("flash").await?;
    ensure!(audit.ok && audit.sold == units, "{} sold of {units}: {:?}", audit.sold, audit.violations);
    let claims = bytes(&cluster, &sale, |shard| &shard.claims).await? as f64 / units as f64;
    let orders = bytes(&cluster, &sale, |shard| &shard.orders).await? as f64 / units as f64;
    say!("{batch:15}  {claims:8.1} {orders:8.1} {:8.1}", claims + orders);
    stack.stop().await
}

async fn bytes(cluster: &Cluster, sale: &Sale, key: fn(&Shard) -> &String) -> Result<u64> {
    let calls: Vec<_> =
        sale.shards().iter().map(|shard| MemoryUsage { slot: shard.slot, key: key(shard) }).collect();
    let answers = cluster.read_all(&calls).await;
    answers.into_iter().sum::<Result<u64, _>>().map_err(|error| anyhow!("MEMORY USAGE: {error}"))
}

/// Calls `MEMORY USAGE` for a key and counts every element (`SAMPLES 0`).
struct MemoryUsage<'a> {
    slot: Slot,
    key: &'a str,
}

impl Call for MemoryUsage<'_> {
    type Answer = u64;

    fn slot(&self) -> Slot {
        self.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("MEMORY");
        cmd.arg("USAGE").arg(self.key).arg("SAMPLES").arg(0);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<u64, CallError> {
        Ok(from_redis_value(reply)?)
    }
}
