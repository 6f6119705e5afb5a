//! The decisions made before the first process starts, and the start of each process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, OnceLock},
};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use rand::random;

use super::{Coordinator, Ledger, Node, PortPlan, Programs, StackOptions};
use crate::{
    ClusterOptions, Folder, Launch, Monitoring, Nginx, Postgres, Process, RabbitMq, RedisCluster, User,
    binary,
    monitoring::{MonitoringOptions, Targets},
    nginx::NginxOptions,
    ports::{PortBlock, loopback},
    postgres::PostgresOptions,
    rabbitmq::RabbitMqOptions,
};

const LOOPBACK: &str = "127.0.0.0/8";

/// The queue that gets all orders.
const QUEUE: &str = "orders";

/// Options, programs, ports and folder of a stack. They do not change while it runs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) options: StackOptions,
    programs: Programs,
    pub(super) ports: PortPlan,
    pub(super) admin_token: String,
    pub(super) folder: Folder,
    window: OnceLock<(Timestamp, Timestamp)>,
    _held_ports: Option<PortBlock>,
}

impl Plan {
    pub(super) fn new(options: StackOptions) -> Result<Self> {
        ensure_fits("nodes", options.nodes, PortPlan::NODES_MAX)?;
        ensure_fits("coordinators", options.coordinators, PortPlan::COORDINATORS_MAX)?;
        ensure_fits("ledgers", options.ledgers, PortPlan::LEDGERS_MAX)?;
        ensure_fits("Redis servers", options.redis_servers(), PortPlan::REDIS_MAX)?;
        let (ports, held_ports) = choose_ports(options.ports)?;
        options.ensure_ports_are_free(ports)?;
        let programs = options.programs.clone().map_or_else(build_programs, Ok)?;
        let folder = options.folder.as_ref().map_or_else(Folder::temporary, Folder::emptied)?;
        let admin_token = format!("{:032x}", random::<u128>());
        let window = OnceLock::new();
        Ok(Self { options, programs, ports, admin_token, folder, window, _held_ports: held_ports })
    }

    pub(super) async fn start_redis(&self) -> Result<RedisCluster> {
        RedisCluster::start(ClusterOptions {
            primaries: self.options.primaries,
            replicas_per_primary: self.options.replicas_per_primary,
            binary: self.options.redis_server.clone(),
            ports: Some(self.ports.redis()),
            folder: Some(self.folder.subfolder("redis")?),
            node_timeout: None,
            lifetime: self.options.lifetime,
            network_namespace: self.options.network_namespace,
            secured: self.options.secured,
            clocks: self.options.clocks,
        })
        .await
    }

    pub(super) async fn start_coordinators(&self, redis: &RedisCluster) -> Result<Vec<Arc<Coordinator>>> {
        let numbers = 0..self.options.coordinators;
        let coordinators = try_join_all(numbers.map(|number| self.start_coordinator(number, redis))).await?;
        Ok(coordinators.into_iter().map(Arc::new).collect())
    }

    pub(super) async fn start_coordinator(&self, number: u16, redis: &RedisCluster) -> Result<Coordinator> {
        ensure_fits("coordinators", number + 1, PortPlan::COORDINATORS_MAX)?;
        let (opens, closes) = self.window();
        let (sale, port) = (&self.options.sale, self.ports.coordinator(number));
        let launch = self
            .launch(&format!("coordinator-{}", number + 1), &self.programs.coordinator, port)
            .env("SALE_ID", &sale.id)
            .env("ADMIN_TOKEN", &self.admin_token)
            .env("TOTAL_STOCK", sale.total_stock)
            .env("SALE_START_TIME", opens)
            .env("SALE_END_TIME", closes);
        let launch = with_redis(launch, redis, User::Coordinator);
        let launch = sale.shards.into_iter().fold(launch, |launch, shards| launch.env("SHARDS", shards));
        let launch = with_environment(launch, &self.options.coordinator_environment);
        Coordinator::start(launch, url(port)).await
    }

    /// Returns the start and end of the sale. They are the same for every coordinator, because one that starts later
    /// must not ask for a different sale.
    fn window(&self) -> (Timestamp, Timestamp) {
        *self.window.get_or_init(|| {
            let opens = Timestamp::now() + self.options.sale.starts_in;
            (opens, opens + self.options.sale.duration)
        })
    }

    pub(super) async fn start_nodes(&self, redis: &RedisCluster) -> Result<Vec<Arc<Node>>> {
        let nodes =
            try_join_all((0..self.options.nodes).map(|number| self.start_node(number, redis))).await?;
        Ok(nodes.into_iter().map(Arc::new).collect())
    }

    pub(super) async fn start_node(&self, number: u16, redis: &RedisCluster) -> Result<Node> {
        self.start_node_as(number, redis, &self.programs.node, &[]).await
    }

    /// Starts a node from another program or with additional variables.
    pub(super) async fn start_node_as(
        &self,
        number: u16,
        redis: &RedisCluster,
        program: &Path,
        environment: &[(String, String)],
    ) -> Result<Node> {
        ensure_fits("nodes", number + 1, PortPlan::NODES_MAX)?;
        let (port, ops_port) = (self.ports.node(number), self.ports.node_ops(number));
        let launch = self
            .launch(&format!("node-{}", number + 1), program, port)
            .env("OPS_PORT", ops_port)
            .env("SALE_ID", &self.options.sale.id);
        let launch = with_redis(launch, redis, User::Node);
        // Buyers of tests and of a trial have no accounts.
        let launch = launch.env("AUTH", "none");
        // Trusts nginx as a proxy. Exempts the clients of tests and load generators from rate limits.
        let launch = launch.env("TRUSTED_PROXIES", LOOPBACK).env("RATE_LIMIT_EXEMPT", LOOPBACK);
        let launch = with_environment(launch, &self.options.node_environment);
        let launch = with_environment(launch, environment);
        Node::start(launch, url(port), url(ops_port)).await
    }

    pub(super) async fn start_postgres(&self) -> Result<Arc<Postgres>> {
        let options = PostgresOptions {
            port: self.ports.postgres(),
            folder: self.folder.subfolder("postgres")?,
            lifetime: self.options.lifetime,
        };
        Ok(Arc::new(Postgres::start(options).await?))
    }

    pub(super) async fn start_rabbitmq(&self) -> Result<RabbitMq> {
        RabbitMq::start(RabbitMqOptions {
            port: self.ports.rabbitmq(),
            folder: self.folder.subfolder("rabbitmq")?,
            lifetime: self.options.lifetime,
        })
        .await
    }

    /// Starts the consumer. The queue must exist.
    pub(super) fn start_consumer(
        &self,
        program: &Path,
        rabbitmq: &RabbitMq,
        postgres: &Postgres,
    ) -> Result<Arc<Process>> {
        let launch = Launch::new("consumer", program, self.folder.path()).lifetime(self.options.lifetime);
        let launch = launch.env("AMQP_URL", rabbitmq.url()).env("AMQP_QUEUE", QUEUE);
        Ok(Arc::new(launch.env("DATABASE_URL", postgres.url()).spawn()?))
    }

    /// Starts a ledger that writes into this database, and delivers to this broker, with additional variables.
    pub(super) async fn start_ledger(
        &self,
        number: u16,
        redis: &RedisCluster,
        postgres: &Postgres,
        rabbitmq: Option<&RabbitMq>,
        environment: &[(String, String)],
    ) -> Result<Ledger> {
        ensure_fits("ledgers", number + 1, PortPlan::LEDGERS_MAX)?;
        let port = self.ports.ledger(number);
        let program = self.programs.ledger.clone().map_or_else(|| binary("flashsale-ledger"), Ok)?;
        let launch = self
            .launch(&format!("ledger-{}", number + 1), &program, port)
            .env("ADMIN_TOKEN", &self.admin_token)
            .env("DATABASE_URL", postgres.url());
        let launch = rabbitmq
            .into_iter()
            .fold(launch, |launch, rabbitmq| launch.env("AMQP_URL", rabbitmq.url()).env("AMQP_QUEUE", QUEUE));
        let launch = with_redis(launch, redis, User::Ledger);
        let launch = with_environment(launch, &self.options.ledger_environment);
        Ledger::start(with_environment(launch, environment), url(port)).await
    }

    pub(super) async fn start_nginx(&self) -> Result<Nginx> {
        Nginx::start(NginxOptions {
            port: self.ports.public(),
            workers: "auto",
            nodes: (0..self.options.nodes).map(|number| self.node_addr(number)).collect(),
            balancers: Vec::new(),
            folder: self.folder.subfolder("nginx")?,
            lifetime: self.options.lifetime,
        })
        .await
    }

    pub(super) async fn start_monitoring(&self, targets: &Targets) -> Result<Monitoring> {
        let options = MonitoringOptions {
            prometheus: self.ports.prometheus(),
            exporter: self.ports.redis_exporter(),
            folder: self.folder.subfolder("prometheus")?,
            lifetime: self.options.lifetime,
        };
        Monitoring::start(options, targets).await
    }

    /// Returns a launch with the settings that all programs share.
    fn launch(&self, name: &str, program: &Path, port: u16) -> Launch {
        Launch::new(name, program, self.folder.path())
            .env("HOST", Ipv4Addr::LOCALHOST)
            .env("PORT", port)
            .lifetime(self.options.lifetime)
    }

    pub(super) fn node_addr(&self, number: u16) -> SocketAddr {
        loopback(self.ports.node(number))
    }
}

fn build_programs() -> Result<Programs> {
    let (node, coordinator) = (binary("flashsale-node")?, binary("flashsale-coordinator")?);
    Ok(Programs { node, coordinator, ledger: None })
}

fn choose_ports(fixed: Option<PortPlan>) -> Result<(PortPlan, Option<PortBlock>)> {
    match fixed {
        Some(ports) => Ok((ports, None)),
        None => {
            let block = PortBlock::take()?;
            Ok((PortPlan::starting_at(block.first()), Some(block)))
        }
    }
}

fn ensure_fits(what: &str, count: u16, count_max: u16) -> Result<()> {
    ensure!(count <= count_max, "{count} {what} were requested, but there are only ports for {count_max}");
    Ok(())
}

/// Adds the address of Redis and, when the cluster is secured, the login.
fn with_redis(launch: Launch, redis: &RedisCluster, user: User) -> Launch {
    let login = redis.security().map(|security| security.environment(user)).unwrap_or_default();
    let launch = launch.env("REDIS_URL", redis.seeds());
    login.into_iter().fold(launch, |launch, (variable, value)| launch.env(variable, value))
}

fn with_environment(launch: Launch, environment: &[(String, String)]) -> Launch {
    launch.envs(environment.iter().cloned())
}

fn url(port: u16) -> String {
    format!("http://{}", loopback(port))
}
