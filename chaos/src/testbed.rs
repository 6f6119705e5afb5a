//! The running system that faults are injected into, and the location of its shards.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use redis::IntoConnectionInfo as _;
use rediscluster::{Cluster, ConnectOptions};
use stock::{functions::LIBRARY, ids::SaleId, layout::SaleKeys, sale::Sale, store::ReadConfig};
use testkit::{RedisCluster, Stack, stack::Coordinator, until};

use crate::{OrderTestbed, operator::Operator};

/// Id of the main sale, which faults are injected into.
pub(crate) const SALE: &str = "flash";

/// Time limit for a leader: the lease expires within seconds, and another coordinator takes it.
const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// The processes and the sale that faults are injected into.
pub(crate) struct Testbed {
    pub(crate) stack: Arc<Stack>,
    pub(crate) sale: Sale,
    /// PostgreSQL and the ledgers.
    pub(crate) orders: OrderTestbed,
    /// Sends the changes that faults make, so that they are in the journal.
    pub(crate) operator: Operator,
    /// A node that can be made to die at a chosen point.
    pub(crate) sabotaged_node: Option<PathBuf>,
}

/// A primary that is the target of a fault.
pub(crate) struct Victim {
    pub(crate) addr: SocketAddr,
    pub(crate) replica: SocketAddr,
    /// Shards that the primary serves.
    pub(crate) shards: Vec<u16>,
}

impl Testbed {
    pub(crate) async fn new(
        stack: Arc<Stack>,
        orders: OrderTestbed,
        operator: Operator,
        sabotaged_node: Option<PathBuf>,
    ) -> Result<Self> {
        let sale = read_sale(&connect(stack.redis()).await?, SALE).await?;
        Ok(Self { stack, sale, orders, operator, sabotaged_node })
    }

    pub(crate) fn redis(&self) -> &RedisCluster {
        self.stack.redis()
    }

    /// Returns one of the primaries that serve shards, selected by `draw`.
    pub(crate) async fn victim(&self, draw: u32) -> Result<Victim> {
        let mut primaries: Vec<SocketAddr> = Vec::new();
        for (_, primary) in self.shard_primaries().await? {
            if !primaries.contains(&primary) {
                primaries.push(primary);
            }
        }
        primaries.sort_unstable();
        let addr = pick(&primaries, draw).context("no primary serves a shard")?;
        self.victim_at(addr).await
    }

    /// Returns this primary with its replica and shards.
    pub(crate) async fn victim_at(&self, addr: SocketAddr) -> Result<Victim> {
        let replica = self.redis().replicas_of(addr).await.first().copied();
        let replica = replica.with_context(|| format!("{addr} has no replica"))?;
        let shard_primaries = self.shard_primaries().await?;
        let shards =
            shard_primaries.into_iter().filter(|(_, at)| *at == addr).map(|(shard, _)| shard).collect();
        Ok(Victim { addr, replica, shards })
    }

    /// Returns every shard with the primary that serves it.
    pub(crate) async fn shard_primaries(&self) -> Result<Vec<(u16, SocketAddr)>> {
        let mut shard_primaries = Vec::new();
        for shard in self.sale.shards() {
            shard_primaries.push((shard.id.index() as u16, self.redis().primary_of(shard.slot).await?));
        }
        Ok(shard_primaries)
    }

    /// Returns the numbers of all shards.
    pub(crate) fn all_shards(&self) -> Vec<u16> {
        (0..self.sale.shards().len() as u16).collect()
    }

    /// Waits until a coordinator leads and returns it.
    pub(crate) async fn leader(&self) -> Result<Arc<Coordinator>> {
        let leading = async || self.current_leader().await.is_some();
        until("a leading coordinator", LEADER_LIMIT, leading).await?;
        self.current_leader().await.context("the leader lost its lease")
    }

    async fn current_leader(&self) -> Option<Arc<Coordinator>> {
        for coordinator in self.stack.coordinators() {
            if self.stack.admin().leads(coordinator.url()).await.unwrap_or(false) {
                return Some(coordinator);
            }
        }
        None
    }

    pub(crate) async fn wait_until_whole(&self) -> Result<()> {
        self.redis().wait_until_whole().await
    }
}

/// Returns the element at `draw`, modulo the number of elements.
pub(crate) fn pick<T: Clone>(all: &[T], draw: u32) -> Option<T> {
    all.get(draw as usize % all.len().max(1)).cloned()
}

/// Connects to a cluster.
///
/// # Errors
/// Fails when no server answers, or when a slot is not served.
pub async fn connect(redis: &RedisCluster) -> Result<Cluster> {
    let seeds = redis.seeds();
    let seeds = seeds.split(',').map(|seed| seed.into_connection_info()).collect::<Result<_, _>>()?;
    Ok(Cluster::connect(ConnectOptions::new(seeds), &LIBRARY).await?)
}

/// Waits until the sale with this id is recorded and returns it.
///
/// # Errors
/// Fails when the sale is not recorded within 10 s.
pub async fn read_sale(cluster: &Cluster, id: &str) -> Result<Sale> {
    let id: SaleId = id.parse()?;
    let keys = SaleKeys::new(&id);
    let recorded = async || matches!(cluster.read(ReadConfig(&keys)).await, Ok(Some(_)));
    until("the sale's record", Duration::from_secs(10), recorded).await?;
    let config = cluster.read(ReadConfig(&keys)).await?.context("the sale's record disappeared")?;
    Ok(Sale::new(config)?)
}
