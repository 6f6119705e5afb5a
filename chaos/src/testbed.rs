//! What faults happen to: the processes, and which shards lie where.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use redis::IntoConnectionInfo as _;
use reqwest::Client;
use serde_json::Value;
use stock::{
    cluster::Cluster, connection::ConnectOptions, ids::SaleId, layout::SaleKeys, sale::Sale,
    store::ReadConfig,
};
use testkit::{RedisCluster, Stack, stack::Coordinator, until};

use crate::operator::Operator;

/// The id of the sale that faults meet.
pub(crate) const SALE: &str = "flash";

/// The lease runs out within seconds, and somebody else takes it.
const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// Admin calls that change nothing take milliseconds.
const ADMIN_LIMIT: Duration = Duration::from_secs(5);

/// Everything there is to be hurt.
pub(crate) struct Testbed {
    pub(crate) stack: Arc<Stack>,
    pub(crate) sale: Sale,
    /// Changes that a fault makes go through the operator, so that they are in the journal.
    pub(crate) operator: Operator,
    /// The node that can be told to die at a named point.
    pub(crate) sabotaged_node: Option<PathBuf>,
}

/// A primary that is to be hurt.
pub(crate) struct Victim {
    pub(crate) addr: SocketAddr,
    pub(crate) replica: SocketAddr,
    /// The shards that it serves.
    pub(crate) shards: Vec<u16>,
}

impl Testbed {
    pub(crate) async fn on(
        stack: Arc<Stack>,
        operator: Operator,
        sabotaged_node: Option<PathBuf>,
    ) -> Result<Self> {
        let sale = read_sale(&connect(stack.redis()).await?, SALE).await?;
        Ok(Self { stack, sale, operator, sabotaged_node })
    }

    pub(crate) fn redis(&self) -> &RedisCluster {
        self.stack.redis()
    }

    /// One of the primaries that serve shards.
    pub(crate) async fn victim(&self, draw: u32) -> Result<Victim> {
        let mut primaries: Vec<SocketAddr> = Vec::new();
        for (_, primary) in self.places().await? {
            if !primaries.contains(&primary) {
                primaries.push(primary);
            }
        }
        primaries.sort_unstable();
        let addr = pick(&primaries, draw).context("no primary serves a shard")?;
        self.victim_at(addr).await
    }

    /// This primary.
    pub(crate) async fn victim_at(&self, addr: SocketAddr) -> Result<Victim> {
        let replica = self.redis().replicas_of(addr).await.first().copied();
        let replica = replica.with_context(|| format!("{addr} has no replica"))?;
        let places = self.places().await?;
        let shards = places.into_iter().filter(|(_, at)| *at == addr).map(|(shard, _)| shard).collect();
        Ok(Victim { addr, replica, shards })
    }

    /// Every shard, and the primary that serves it.
    pub(crate) async fn places(&self) -> Result<Vec<(u16, SocketAddr)>> {
        let mut places = Vec::new();
        for shard in self.sale.shards() {
            places.push((shard.id.index() as u16, self.redis().primary_of(shard.slot).await?));
        }
        Ok(places)
    }

    /// All shards.
    pub(crate) fn every_shard(&self) -> Vec<u16> {
        (0..self.sale.shards().len() as u16).collect()
    }

    /// The coordinator that leads, once one does.
    pub(crate) async fn leader(&self) -> Result<Arc<Coordinator>> {
        let leading = async || self.leading_now().await.is_some();
        until("a coordinator that leads", LEADER_LIMIT, leading).await?;
        self.leading_now().await.context("a coordinator led just now")
    }

    async fn leading_now(&self) -> Option<Arc<Coordinator>> {
        for coordinator in self.stack.coordinators() {
            if self.leads(&coordinator).await.unwrap_or(false) {
                return Some(coordinator);
            }
        }
        None
    }

    async fn leads(&self, coordinator: &Coordinator) -> Result<bool> {
        let request =
            Client::new().get(format!("{}/admin/coordinators", coordinator.url())).timeout(ADMIN_LIMIT);
        let view: Value = request.bearer_auth(self.stack.admin_token()).send().await?.json().await?;
        Ok(view["leads"] == true)
    }

    pub(crate) async fn wait_until_whole(&self) -> Result<()> {
        self.redis().wait_until_whole().await
    }
}

/// The one with this number, modulo as many as there are.
pub(crate) fn pick<T: Clone>(all: &[T], draw: u32) -> Option<T> {
    all.get(draw as usize % all.len().max(1)).cloned()
}

/// A connection to all of a cluster.
///
/// # Errors
/// When nobody answers, or not every slot is served.
pub async fn connect(redis: &RedisCluster) -> Result<Cluster> {
    let seeds = redis.seeds();
    let seeds = seeds.split(',').map(|seed| seed.into_connection_info()).collect::<Result<_, _>>()?;
    Ok(Cluster::connect(ConnectOptions::new(seeds)).await?)
}

/// The sale of this id, once it is recorded.
///
/// # Errors
/// When it is not in time.
pub async fn read_sale(cluster: &Cluster, id: &str) -> Result<Sale> {
    let id: SaleId = id.parse()?;
    let keys = SaleKeys::new(&id);
    let recorded = async || matches!(cluster.read(ReadConfig(&keys)).await, Ok(Some(_)));
    until("the sale's record", Duration::from_secs(10), recorded).await?;
    let config = cluster.read(ReadConfig(&keys)).await?.context("the sale was there just now")?;
    Ok(Sale::new(config)?)
}
