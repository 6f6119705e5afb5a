//! A whole flash sale: Redis Cluster, coordinators, nodes and nginx, in a private folder.

mod actors;
mod answers;
mod options;
mod plan;
mod port_plan;
mod rolling;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{TryFutureExt, future::try_join_all};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;

use crate::{
    Folder, Monitoring, Nginx, Process, RedisCluster, monitoring::Targets, ports::loopback, wait::until_ok,
};

pub use actors::{Coordinator, Node, Programs};
pub use answers::{AuditReport, SaleStatus, StockStatus};
pub use options::{SaleOptions, StackOptions};
pub use port_plan::PortPlan;
pub use rolling::RolloutStep;

use plan::Plan;

/// A node answers the requests in flight before it ends; those have deadlines well below this.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// A node that is ready may not have read the sale yet; it does several times a second.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// An audit reads every claim and every order of a sale.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A running stack; dropping it kills it, unless it was released.
#[derive(Debug)]
pub struct Stack {
    // In this order they are dropped, too: whoever depends on another goes first, and the folder goes last.
    monitoring: Option<Monitoring>,
    nginx: Nginx,
    nodes: Mutex<Vec<Arc<Node>>>,
    coordinators: Mutex<Vec<Arc<Coordinator>>>,
    redis: RedisCluster,
    client: Client,
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
        let client = Client::builder().timeout(ANSWER_LIMIT).build()?;
        let (nodes, coordinators) = (Mutex::new(nodes), Mutex::new(coordinators));
        let mut stack = Self { monitoring: None, nginx, nodes, coordinators, redis, client, plan };
        stack.wait_until_it_sells().await?;
        progress("nginx");
        if stack.plan.options.observed {
            stack.monitoring = Some(stack.plan.start_monitoring(&stack.targets().await).await?);
            progress("Prometheus");
        }
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

    /// The coordinators, dead ones too.
    pub fn coordinators(&self) -> Vec<Arc<Coordinator>> {
        self.lock_coordinators().clone()
    }

    /// The Redis Cluster.
    pub fn redis(&self) -> &RedisCluster {
        &self.redis
    }

    /// The load balancer.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// What watches it, where that was asked for.
    pub fn monitoring(&self) -> Option<&Monitoring> {
        self.monitoring.as_ref()
    }

    /// What the coordinators' admin API wants as bearer token.
    pub fn admin_token(&self) -> &str {
        &self.plan.admin_token
    }

    /// The folder of logs and data.
    pub fn folder(&self) -> &Folder {
        &self.plan.folder
    }

    /// Every process, dead ones too, in the order in which they are to be stopped.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let monitoring = self.monitoring.iter().flat_map(Monitoring::processes);
        let nginx = [self.nginx.process()];
        let nodes = self.nodes().into_iter().map(|node| node.process());
        let coordinators = self.coordinators().into_iter().map(|coordinator| coordinator.process());
        let of_ours = nginx.into_iter().chain(nodes).chain(coordinators);
        monitoring.chain(of_ours).chain(self.redis.processes()).collect()
    }

    /// Lets every process outlive us; see [`Process::release`].
    pub fn release(&self) {
        self.processes().iter().for_each(|process| process.release());
    }

    /// Starts one more node and has nginx send requests to it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_node(&self) -> Result<Arc<Node>> {
        let number = u16::try_from(self.lock_nodes().len())?;
        let node = Arc::new(self.plan.start_node(number, &self.redis).await?);
        self.lock_nodes().push(node.clone());
        self.serve_nodes(number + 1).await?;
        self.watch_all().await?;
        Ok(node)
    }

    /// Starts one more node beside the others: another program, or one with further variables, that nginx does not
    /// know. It is its caller's alone.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_node_aside(&self, program: &Path, environment: &[(String, String)]) -> Result<Node> {
        let number = u16::try_from(self.lock_nodes().len())?;
        self.plan.start_node_as(number, &self.redis, program, environment).await
    }

    /// Takes the last node out, in good order: nginx sends it nothing new, and it answers what it has.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn retire_node(&self) -> Result<()> {
        let (node, left) = {
            let mut nodes = self.lock_nodes();
            (nodes.pop().context("there is no node to retire")?, nodes.len())
        };
        self.serve_nodes(u16::try_from(left)?).await?;
        self.watch_all().await?;
        node.process().stop(DRAIN_LIMIT).await.map(drop)
    }

    /// Starts one more coordinator.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_coordinator(&self) -> Result<Arc<Coordinator>> {
        let number = u16::try_from(self.lock_coordinators().len())?;
        let coordinator = Arc::new(self.plan.start_coordinator(number, &self.redis).await?);
        self.lock_coordinators().push(coordinator.clone());
        self.watch_all().await?;
        Ok(coordinator)
    }

    /// The default sale's status, through nginx.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<SaleStatus> {
        self.status_of(&self.plan.options.sale.id).await
    }

    /// The default sale's status as the other family of calls has it, through nginx.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn stock_status(&self) -> Result<StockStatus> {
        read(self.client.get(format!("{}/api/status", self.url()))).await
    }

    /// A sale's status, through nginx.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status_of(&self, sale: &str) -> Result<SaleStatus> {
        read(self.client.get(format!("{}/api/sales/{sale}/status", self.url()))).await
    }

    /// A sale's audit by the first coordinator that runs.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn audit(&self, sale: &str) -> Result<AuditReport> {
        let running = self.coordinators().into_iter().find(|coordinator| coordinator.process().is_running());
        let coordinator = running.context("a stack without a coordinator has no audit")?;
        let audit = self.client.get(format!("{}/admin/sales/{sale}/audit", coordinator.url()));
        read(audit.bearer_auth(self.admin_token())).await
    }

    /// Ends everything in good order: first nginx, so that nothing new comes in, then the nodes, which drain, then
    /// coordinators and Redis.
    ///
    /// # Errors
    /// When something had to be killed; everything is down all the same.
    pub async fn stop(self) -> Result<()> {
        let Self { monitoring, nginx, nodes, coordinators, redis, plan, .. } = self;
        if let Some(monitoring) = monitoring {
            monitoring.stop().await?;
        }
        nginx.process().stop(DRAIN_LIMIT).await?;
        let nodes = nodes.into_inner().unwrap_or_else(PoisonError::into_inner);
        stop_all(nodes.iter().map(|node| node.process()).collect()).await?;
        let coordinators = coordinators.into_inner().unwrap_or_else(PoisonError::into_inner);
        stop_all(coordinators.iter().map(|coordinator| coordinator.process()).collect()).await?;
        redis.stop().await?;
        drop(plan);
        Ok(())
    }

    async fn wait_until_it_sells(&self) -> Result<()> {
        let answered = || self.status().map_ok(drop);
        until_ok("the sale's status through nginx", STATUS_LIMIT, answered).await
    }

    /// Has Prometheus ask all that there is now.
    async fn watch_all(&self) -> Result<()> {
        match &self.monitoring {
            Some(monitoring) => monitoring.watch(&self.targets().await),
            None => Ok(()),
        }
    }

    async fn targets(&self) -> Targets {
        let addr =
            |url: &str| url.trim_start_matches("http://").parse().expect("it was made from an address");
        Targets {
            nodes: self.nodes().iter().map(|node| addr(node.ops_url())).collect(),
            coordinators: self.coordinators().iter().map(|coordinator| addr(coordinator.url())).collect(),
            redis: self.redis.servers().await.iter().map(|server| server.addr).collect(),
        }
    }

    async fn serve_nodes(&self, count: u16) -> Result<()> {
        self.nginx.serve((0..count).map(|number| self.plan.node_addr(number)).collect()).await
    }

    fn lock_nodes(&self) -> MutexGuard<'_, Vec<Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_coordinators(&self) -> MutexGuard<'_, Vec<Arc<Coordinator>>> {
        self.coordinators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let response = request.send().await?;
    let (url, status) = (response.url().clone(), response.status());
    ensure!(status.is_success(), "GET {url} answers {status}: {}", response.text().await?);
    Ok(response.json().await?)
}

/// Asks all at once, so that they drain side by side.
async fn stop_all(processes: Vec<Arc<Process>>) -> Result<()> {
    try_join_all(processes.iter().map(|process| process.stop(DRAIN_LIMIT))).await?;
    Ok(())
}
