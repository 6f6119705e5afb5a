//! A whole flash sale: Redis Cluster, coordinators, nodes and nginx, in a private folder.

mod actors;
mod answers;
mod port_plan;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rand::random;
use reqwest::Client;
use serde::de::DeserializeOwned;

use crate::{
    ClusterOptions, Folder, Launch, Lifetime, Nginx, Process, RedisCluster, ServerBinary, binary,
    nginx::NginxOptions,
    ports::{PortBlock, loopback},
};

pub use actors::{Coordinator, Node, Programs};
pub use answers::{Audit, SaleStatus};
pub use port_plan::PortPlan;

/// A node answers the requests in flight before it ends; those have deadlines well below this.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// An audit reads every claim and every order of a sale.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What a stack is made of, and the sale it opens.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Nodes behind nginx (2).
    pub nodes: u16,
    /// Coordinators (1).
    pub coordinators: u16,
    /// Primaries of the Redis Cluster (3).
    pub primaries: u16,
    /// Replicas of each primary (1).
    pub replicas_per_primary: u16,
    /// The Redis program; what [`ServerBinary::find`] finds if none is given.
    pub redis_server: Option<ServerBinary>,
    /// The programs to start; those of this workspace, built like the running program, if none are given.
    pub programs: Option<Programs>,
    /// Fixed ports; free ones if none are given.
    pub ports: Option<PortPlan>,
    /// A folder to empty and use; one that goes with the stack if none is given.
    pub folder: Option<PathBuf>,
    /// Whether the processes may outlive us.
    pub lifetime: Lifetime,
    /// The default sale.
    pub sale: SaleOptions,
    /// Further variables for every node.
    pub node_environment: Vec<(String, String)>,
    /// Further variables for every coordinator.
    pub coordinator_environment: Vec<(String, String)>,
}

/// The default sale of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaleOptions {
    /// Its id (`flash`).
    pub id: String,
    /// Units to sell (1000).
    pub total_stock: u64,
    /// How many shards; the coordinator's default if none is given.
    pub shards: Option<u32>,
    /// How long after the start of the stack's first coordinator it opens (at once).
    pub starts_in: Duration,
    /// How long it is open (an hour).
    pub duration: Duration,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            coordinators: 1,
            primaries: 3,
            replicas_per_primary: 1,
            redis_server: None,
            programs: None,
            ports: None,
            folder: None,
            lifetime: Lifetime::Attached,
            sale: SaleOptions::default(),
            node_environment: Vec::new(),
            coordinator_environment: Vec::new(),
        }
    }
}

impl Default for SaleOptions {
    fn default() -> Self {
        Self {
            id: "flash".into(),
            total_stock: 1000,
            shards: None,
            starts_in: Duration::ZERO,
            duration: Duration::from_hours(1),
        }
    }
}

/// A running stack; dropping it kills it, unless it was released.
#[derive(Debug)]
pub struct Stack {
    // In this order they are dropped, too: whoever depends on another goes first, and the folder goes last.
    nginx: Nginx,
    nodes: Mutex<Vec<Arc<Node>>>,
    coordinators: Vec<Coordinator>,
    redis: RedisCluster,
    plan: Plan,
}

impl Stack {
    /// Starts everything and waits until the sale's status is answered through nginx. `progress` is told each step
    /// when it is done.
    ///
    /// # Errors
    /// When a program is missing or does not compile, a port is taken, or a process does not come up in time: with the
    /// end of its log. Nothing is left running then.
    pub async fn start(options: StackOptions, mut progress: impl FnMut(&str)) -> Result<Self> {
        let plan = Plan::new(options)?;
        let redis = plan.start_redis().await?;
        progress(&format!("Redis Cluster of {} primaries", plan.options.primaries));
        let coordinators = plan.start_coordinators(&redis).await?;
        progress(&format!("coordinator, sale `{}`", plan.options.sale.id));
        let nodes = plan.start_nodes(&redis).await?;
        progress(&format!("{} nodes", nodes.len()));
        let nginx = plan.start_nginx().await?;
        let stack = Self { nginx, nodes: Mutex::new(nodes), coordinators, redis, plan };
        stack.status().await.context("the sale does not answer through nginx")?;
        progress("nginx");
        Ok(stack)
    }

    /// Where buyers reach the sale: nginx.
    pub fn url(&self) -> String {
        format!("http://{}", loopback(self.plan.ports.public()))
    }

    /// The nodes, dead ones too.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.lock_nodes().clone()
    }

    /// The coordinators.
    pub fn coordinators(&self) -> &[Coordinator] {
        &self.coordinators
    }

    /// The Redis Cluster.
    pub fn redis(&self) -> &RedisCluster {
        &self.redis
    }

    /// The load balancer.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// What the coordinators' admin API wants as bearer token.
    pub fn admin_token(&self) -> &str {
        &self.plan.admin_token
    }

    /// The folder of logs and data.
    pub fn folder(&self) -> &Folder {
        &self.plan.folder
    }

    /// Every process, in the order in which they are to be stopped.
    pub fn processes(&self) -> Vec<ProcessOf> {
        let nodes = self.nodes().into_iter().map(ProcessOf::Node);
        std::iter::once(ProcessOf::Nginx).chain(nodes).collect()
    }

    /// Starts one more node and has nginx send requests to it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_node(&self) -> Result<Arc<Node>> {
        let number = u16::try_from(self.lock_nodes().len())?;
        let node = Arc::new(self.plan.start_node(number, &self.redis).await?);
        self.lock_nodes().push(node.clone());
        self.nginx.serve(self.plan.node_addrs(number + 1))?;
        Ok(node)
    }

    /// The default sale's status, through nginx.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<SaleStatus> {
        self.get(&format!("{}/api/sale/status", self.url())).await
    }

    /// A sale's audit by the first coordinator.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn audit(&self, sale: &str) -> Result<Audit> {
        let coordinator = self.coordinators.first().context("a stack without a coordinator has no audit")?;
        self.get(&format!("{}/admin/sales/{sale}/audit", coordinator.url())).await
    }

    /// Ends everything in good order: first nginx, so that nothing new comes in, then the nodes, which drain, then
    /// coordinators and Redis.
    ///
    /// # Errors
    /// When something had to be killed; everything is down all the same.
    pub async fn stop(self) -> Result<()> {
        let Self { nginx, nodes, coordinators, redis, plan } = self;
        nginx.process().stop(DRAIN_LIMIT).await?;
        let nodes = nodes.into_inner().unwrap_or_else(PoisonError::into_inner);
        stop_all(nodes.iter().map(|node| node.process()).collect()).await?;
        stop_all(coordinators.iter().map(Coordinator::process).collect()).await?;
        redis.stop().await?;
        drop(plan);
        Ok(())
    }
}
