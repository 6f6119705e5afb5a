//! A complete flash sale in a private folder: Redis Cluster, coordinators, nodes, nginx, and if wanted PostgreSQL and
//! ledgers.

mod actors;
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
use buyers::{ANSWER_LIMIT, AdminClient, ApiFamily, BuyerClient, read_json};
use futures::{TryFutureExt, future::try_join_all};

use tokio::sync::OnceCell;

use crate::{
    Folder, Monitoring, Nginx, Postgres, Process, RabbitMq, RedisCluster, monitoring::Targets,
    ports::loopback, wait::until_ok,
};

pub use actors::{Coordinator, Ledger, Node, Programs};
pub use buyers::{AuditReport, SaleStatus, StockStatus};
pub use options::{SaleOptions, StackOptions};
pub use port_plan::PortPlan;
pub use rolling::RolloutStep;

use plan::Plan;

/// Time limit of a graceful stop. A node answers the requests in flight first; their deadlines are well below this.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// Time limit of the first status. A ready node may not have read the sale yet; it reads several times per second.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// A running stack. Dropping it kills its processes, unless it was released.
#[derive(Debug)]
pub struct Stack {
    // Fields are dropped in this order: each process before those that it depends on, the folder last.
    monitoring: Option<Monitoring>,
    nginx: Nginx,
    nodes: Mutex<Vec<Arc<Node>>>,
    consumer: Option<Arc<Process>>,
    ledgers: Mutex<Vec<Arc<Ledger>>>,
    rabbitmq: OnceCell<RabbitMq>,
    postgres: OnceCell<Arc<Postgres>>,
    coordinators: Mutex<Vec<Arc<Coordinator>>>,
    redis: RedisCluster,
    client: BuyerClient,
    admin: AdminClient,
    plan: Plan,
}

impl Stack {
    /// Starts everything and waits until nginx answers with the sale's status. Calls `progress` after each step.
    ///
    /// # Errors
    /// Fails when a program is missing or does not compile, a port is taken, or a process is not ready in time. The
    /// error contains the end of that process's log. No process is left running.
    pub async fn start(options: StackOptions, mut progress: impl FnMut(&str)) -> Result<Self> {
        let plan = Plan::new(options)?;
        let redis = plan.start_redis().await?;
        progress(&format!("Redis Cluster of {} primaries", plan.options.primaries));
        let coordinators = plan.start_coordinators(&redis).await?;
        progress(&format!("coordinator, sale `{}`", plan.options.sale.id));
        let nodes = plan.start_nodes(&redis).await?;
        progress(&format!("{} nodes", nodes.len()));
        let nginx = plan.start_nginx().await?;
        let (client, admin) = (BuyerClient::new(ANSWER_LIMIT), AdminClient::new(&plan.admin_token));
        let (nodes, coordinators) = (Mutex::new(nodes), Mutex::new(coordinators));
        let (ledgers, postgres) = (Mutex::default(), OnceCell::new());
        let mut stack = Self {
            monitoring: None,
            nginx,
            nodes,
            consumer: None,
            ledgers,
            rabbitmq: OnceCell::new(),
            postgres,
            coordinators,
            redis,
            client,
            admin,
            plan,
        };
        stack.wait_until_status_is_served().await?;
        progress("nginx");
        for _ in 0..stack.plan.options.ledgers {
            stack.start_ledger().await?;
        }
        if stack.postgres().is_some() {
            progress("PostgreSQL, ledger");
        }
        stack.consumer = stack.start_consumer().await?;
        if stack.consumer.is_some() {
            progress("RabbitMQ, consumer");
        }
        if stack.plan.options.observed {
            stack.monitoring = Some(stack.plan.start_monitoring(&stack.targets().await).await?);
            progress("Prometheus");
        }
        Ok(stack)
    }

    /// The URL for buyers, which is that of nginx.
    pub fn url(&self) -> String {
        format!("http://{}", loopback(self.plan.ports.public()))
    }

    /// The ports of all processes.
    pub fn ports(&self) -> PortPlan {
        self.plan.ports
    }

    /// The nodes, including dead ones.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.lock_nodes().clone()
    }

    /// The coordinators, including dead ones.
    pub fn coordinators(&self) -> Vec<Arc<Coordinator>> {
        self.lock_coordinators().clone()
    }

    /// The ledgers, including dead ones.
    pub fn ledgers(&self) -> Vec<Arc<Ledger>> {
        self.lock_ledgers().clone()
    }

    /// The database of the ledgers, or `None` when it was not started.
    pub fn postgres(&self) -> Option<&Arc<Postgres>> {
        self.postgres.get()
    }

    /// The Redis Cluster.
    pub fn redis(&self) -> &RedisCluster {
        &self.redis
    }

    /// The load balancer.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// The monitoring, or `None` when it was not requested.
    pub fn monitoring(&self) -> Option<&Monitoring> {
        self.monitoring.as_ref()
    }

    /// The bearer token of the coordinators' admin API and of the ledgers' orders API.
    pub fn admin_token(&self) -> &str {
        &self.plan.admin_token
    }

    /// A client of the coordinators' admin API.
    pub fn admin(&self) -> &AdminClient {
        &self.admin
    }

    /// The folder of logs and data.
    pub fn folder(&self) -> &Folder {
        &self.plan.folder
    }

    /// Every process, including dead ones, in the order in which they must be stopped.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let monitoring = self.monitoring.iter().flat_map(Monitoring::processes);
        let nginx = [self.nginx.process()];
        let nodes = self.nodes().into_iter().map(|node| node.process());
        let coordinators = self.coordinators().into_iter().map(|coordinator| coordinator.process());
        let ledgers = self.ledgers().into_iter().map(|ledger| ledger.process());
        let postgres = self.postgres().map(|postgres| postgres.process());
        let consumer = self.consumer().cloned();
        let rabbitmq = self.rabbitmq().into_iter().flat_map(RabbitMq::processes);
        let orders = consumer.into_iter().chain(ledgers).chain(rabbitmq);
        let own = nginx.into_iter().chain(nodes).chain(orders).chain(coordinators).chain(postgres);
        monitoring.chain(own).chain(self.redis.processes()).collect()
    }

    /// Lets every process outlive this value; see [`Process::release`].
    pub fn release(&self) {
        self.processes().iter().for_each(|process| process.release());
    }

    /// Starts another node and adds it to nginx.
    ///
    /// # Errors
    /// Fails when the node does not start.
    pub async fn start_node(&self) -> Result<Arc<Node>> {
        let number = u16::try_from(self.lock_nodes().len())?;
        let node = Arc::new(self.plan.start_node(number, &self.redis).await?);
        self.lock_nodes().push(node.clone());
        self.route_to_nodes(number + 1).await?;
        self.update_monitoring().await?;
        Ok(node)
    }

    /// Starts a node from another program or with additional variables. nginx does not route to it, and the stack does
    /// not keep it: it ends when the caller drops it.
    ///
    /// # Errors
    /// Fails when the node does not start.
    pub async fn start_separate_node(
        &self,
        program: &Path,
        environment: &[(String, String)],
    ) -> Result<Node> {
        let number = u16::try_from(self.lock_nodes().len())?;
        self.plan.start_node_as(number, &self.redis, program, environment).await
    }

    /// Removes the last node gracefully: nginx stops routing to it, and the node finishes its requests.
    ///
    /// # Errors
    /// Fails when the node had to be killed.
    pub async fn retire_node(&self) -> Result<()> {
        let (node, remaining) = {
            let mut nodes = self.lock_nodes();
            (nodes.pop().context("there is no node to retire")?, nodes.len())
        };
        self.route_to_nodes(u16::try_from(remaining)?).await?;
        self.update_monitoring().await?;
        node.process().stop(DRAIN_LIMIT).await.map(drop)
    }

    /// Starts another coordinator.
    ///
    /// # Errors
    /// Fails when the coordinator does not start.
    pub async fn start_coordinator(&self) -> Result<Arc<Coordinator>> {
        let number = u16::try_from(self.lock_coordinators().len())?;
        let coordinator = Arc::new(self.plan.start_coordinator(number, &self.redis).await?);
        self.lock_coordinators().push(coordinator.clone());
        self.update_monitoring().await?;
        Ok(coordinator)
    }

    /// Starts PostgreSQL, unless it was started before.
    ///
    /// # Errors
    /// Fails when PostgreSQL is not installed or does not start.
    pub async fn start_postgres(&self) -> Result<&Arc<Postgres>> {
        self.postgres.get_or_try_init(|| self.plan.start_postgres()).await
    }

    /// Starts another ledger, and PostgreSQL when it is the first one.
    ///
    /// # Errors
    /// Fails when PostgreSQL or the ledger does not start.
    pub async fn start_ledger(&self) -> Result<Arc<Ledger>> {
        self.start_ledger_with(&[]).await
    }

    /// Starts another ledger with additional variables; see [`Self::start_ledger`].
    ///
    /// # Errors
    /// Fails when PostgreSQL or the ledger does not start.
    pub async fn start_ledger_with(&self, environment: &[(String, String)]) -> Result<Arc<Ledger>> {
        let postgres = self.start_postgres().await?;
        let number = u16::try_from(self.lock_ledgers().len())?;
        let rabbitmq = self.start_rabbitmq().await?;
        let ledger = self.plan.start_ledger(number, &self.redis, postgres, rabbitmq, environment).await?;
        let ledger = Arc::new(ledger);
        self.lock_ledgers().push(ledger.clone());
        self.update_monitoring().await?;
        Ok(ledger)
    }

    /// Starts RabbitMQ, unless it was started before, when the stack has a consumer.
    async fn start_rabbitmq(&self) -> Result<Option<&RabbitMq>> {
        if self.plan.options.consumer.is_none() {
            return Ok(None);
        }
        self.rabbitmq.get_or_try_init(|| self.plan.start_rabbitmq()).await.map(Some)
    }

    /// Starts the consumer once a ledger has created the queue.
    async fn start_consumer(&self) -> Result<Option<Arc<Process>>> {
        let (Some(program), Some(ledger)) = (&self.plan.options.consumer, self.ledgers().into_iter().next())
        else {
            return Ok(None);
        };
        let (rabbitmq, postgres) = (self.rabbitmq.get(), self.postgres());
        let (rabbitmq, postgres) = rabbitmq.zip(postgres).context("a ledger has a broker and a database")?;
        let delivers = async || {
            let metrics = reqwest::get(format!("{}/metrics", ledger.url())).await?.text().await?;
            ensure!(metrics.contains("flashsale_feed_connected{sink=\"amqp\"} 1"), "it is not connected");
            Ok(())
        };
        until_ok("the ledger's connection to RabbitMQ", STATUS_LIMIT, delivers).await?;
        self.plan.start_consumer(program, rabbitmq, postgres).map(Some)
    }

    /// The consumer of orders, or `None` when it was not requested.
    pub fn consumer(&self) -> Option<&Arc<Process>> {
        self.consumer.as_ref()
    }

    /// The broker of the feed, or `None` when it was not requested.
    pub fn rabbitmq(&self) -> Option<&RabbitMq> {
        self.rabbitmq.get()
    }

    /// Reads the status of the default sale through nginx.
    ///
    /// # Errors
    /// Fails when no node answers.
    pub async fn status(&self) -> Result<SaleStatus> {
        self.status_of(&self.plan.options.sale.id).await
    }

    /// Reads the status of the default sale through nginx, from the single-sale API (`GET /api/status`).
    ///
    /// # Errors
    /// Fails when no node answers.
    pub async fn stock_status(&self) -> Result<StockStatus> {
        read_json(self.client.get(&self.url(), ApiFamily::SingleSale, "status")).await
    }

    /// Reads the status of a sale through nginx.
    ///
    /// # Errors
    /// Fails when no node answers.
    pub async fn status_of(&self, sale: &str) -> Result<SaleStatus> {
        self.client.of_sale(sale).sale_status(&self.url()).await
    }

    /// Audits a sale on the first running coordinator.
    ///
    /// # Errors
    /// Fails when no coordinator runs, or it does not answer.
    pub async fn audit(&self, sale: &str) -> Result<AuditReport> {
        let running = self.coordinators().into_iter().find(|coordinator| coordinator.process().is_running());
        let coordinator = running.context("no coordinator is running")?;
        self.admin.audit(coordinator.url(), sale).await
    }

    /// Stops everything gracefully: nginx first, so that no new requests arrive, then the nodes, which drain, then the
    /// ledgers, the coordinators, PostgreSQL and Redis.
    ///
    /// # Errors
    /// Fails when a process had to be killed. All processes are down in that case, too.
    pub async fn stop(self) -> Result<()> {
        let Self {
            monitoring,
            nginx,
            nodes,
            consumer,
            ledgers,
            rabbitmq,
            postgres,
            coordinators,
            redis,
            plan,
            ..
        } = self;
        if let Some(monitoring) = monitoring {
            monitoring.stop().await?;
        }
        nginx.process().stop(DRAIN_LIMIT).await?;
        let nodes = nodes.into_inner().unwrap_or_else(PoisonError::into_inner);
        stop_all(nodes.iter().map(|node| node.process()).collect()).await?;
        stop_all(consumer.into_iter().collect()).await?;
        let ledgers = ledgers.into_inner().unwrap_or_else(PoisonError::into_inner);
        stop_all(ledgers.iter().map(|ledger| ledger.process()).collect()).await?;
        if let Some(rabbitmq) = rabbitmq.into_inner() {
            stop_all(rabbitmq.processes()).await?;
        }
        let coordinators = coordinators.into_inner().unwrap_or_else(PoisonError::into_inner);
        stop_all(coordinators.iter().map(|coordinator| coordinator.process()).collect()).await?;
        if let Some(postgres) = postgres.get() {
            postgres.stop(DRAIN_LIMIT).await?;
        }
        redis.stop().await?;
        drop(plan);
        Ok(())
    }

    async fn wait_until_status_is_served(&self) -> Result<()> {
        let answered = || self.status().map_ok(drop);
        until_ok("the sale's status through nginx", STATUS_LIMIT, answered).await
    }

    /// Updates the scrape targets to the current processes.
    async fn update_monitoring(&self) -> Result<()> {
        match &self.monitoring {
            Some(monitoring) => monitoring.set_targets(&self.targets().await),
            None => Ok(()),
        }
    }

    async fn targets(&self) -> Targets {
        let addr =
            |url: &str| url.trim_start_matches("http://").parse().expect("the URL was made from an address");
        Targets {
            nodes: self.nodes().iter().map(|node| addr(node.ops_url())).collect(),
            coordinators: self.coordinators().iter().map(|coordinator| addr(coordinator.url())).collect(),
            ledgers: self.ledgers().iter().map(|ledger| addr(ledger.url())).collect(),
            redis: self.redis.servers().await.iter().map(|server| server.addr).collect(),
        }
    }

    async fn route_to_nodes(&self, count: u16) -> Result<()> {
        self.nginx.serve((0..count).map(|number| self.plan.node_addr(number)).collect()).await
    }

    fn lock_nodes(&self) -> MutexGuard<'_, Vec<Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_ledgers(&self) -> MutexGuard<'_, Vec<Arc<Ledger>>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_coordinators(&self) -> MutexGuard<'_, Vec<Arc<Coordinator>>> {
        self.coordinators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops all processes concurrently, so that they drain at the same time.
async fn stop_all(processes: Vec<Arc<Process>>) -> Result<()> {
    try_join_all(processes.iter().map(|process| process.stop(DRAIN_LIMIT))).await?;
    Ok(())
}
