//! A real Redis Cluster on the loopback address, and the faults that tests inject into it.
//!
//! A cluster is called *whole* when every server sees every slot served and every other server connected, and each
//! primary's replicas hold its data.

mod append_only_file;
mod disks;
mod failover;
mod forming;
mod options;
mod partition;
mod replication;
mod shared;
mod slots;

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use jiff::SignedDuration;
use redis::{ConnectionInfo, RedisConnectionInfo, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};

use crate::{
    Folder, NetworkNamespace, Process, Security, ServerBinary, User,
    ports::PortBlock,
    redis_server::{self, Info, Server, ServerLocation, ServerOptions},
};

pub use failover::Failover;
pub use options::{ClusterOptions, ClusterPorts};

/// Time limit of a shutdown. It takes milliseconds, because the append-only file is written continuously.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The role that a server reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// Serves slots.
    Primary,
    /// Replicates a primary.
    Replica,
    /// Does not answer: dead or frozen.
    Silent,
}

/// The current state of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// The address for clients.
    pub addr: SocketAddr,
    /// The process id.
    pub pid: u32,
    /// The role that the server reports.
    pub role: ServerRole,
}

/// The number of calls of a command and their total duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandStats {
    /// Number of calls.
    pub calls: u64,
    /// CPU time of these calls, in microseconds.
    pub usec: u64,
}

/// A running cluster. Dropping it kills its servers, unless their processes were released.
#[derive(Debug)]
pub struct RedisCluster {
    // Fields are dropped in this order: the servers before the namespace that one of them runs in.
    servers: RwLock<Vec<Arc<Server>>>,
    network_namespace: Option<NetworkNamespace>,
    options: ClusterOptions,
    binary: ServerBinary,
    ports: ClusterPorts,
    security: Option<Arc<Security>>,
    folder: Folder,
    _ports: Option<PortBlock>,
}

impl RedisCluster {
    /// Starts the servers, forms the cluster and waits until it is whole.
    ///
    /// # Errors
    /// Fails when a port is taken, or the servers or the cluster are not ready in time.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let cluster = Self::spawn(options)?;
        let servers = cluster.all_servers();
        try_join_all(servers.iter().map(|server| server.wait_until_ready())).await?;
        cluster.form().await?;
        Ok(cluster)
    }

    /// The addresses of all servers in the format of `REDIS_URL`: `redis://127.0.0.1:1,redis://…`.
    pub fn seeds(&self) -> String {
        let urls: Vec<String> = self.all_servers().iter().map(|server| server.url()).collect();
        urls.join(",")
    }

    /// Returns the connection settings of a user for each server. They are the same for all users when the cluster is
    /// not secured.
    ///
    /// # Errors
    /// Fails when the password or the certificate file cannot be read.
    pub fn logins(&self, user: User) -> Result<Vec<ConnectionInfo>> {
        self.all_servers().iter().map(|server| server.login(user)).collect()
    }

    /// Certificates, users and passwords, or `None` when the cluster is not secured.
    pub fn security(&self) -> Option<&Security> {
        self.security.as_deref()
    }

    /// Every server with the role that it reports now.
    pub async fn servers(&self) -> Vec<ServerView> {
        join_all(self.all_servers().iter().map(|server| server_view(server))).await
    }

    /// The addresses of the servers that report to be primaries now.
    pub async fn primaries(&self) -> Vec<SocketAddr> {
        self.with_role(ServerRole::Primary).await
    }

    /// The addresses of the servers that report to be replicas now.
    pub async fn replicas(&self) -> Vec<SocketAddr> {
        self.with_role(ServerRole::Replica).await
    }

    /// The addresses of the servers that replicate this primary now.
    pub async fn replicas_of(&self, primary: SocketAddr) -> Vec<SocketAddr> {
        let mut copies = Vec::new();
        for replica in self.replicas().await {
            let port = self.server(replica).info("replication").await.ok();
            let port = port.and_then(|info| info.field("master_port")?.parse::<u16>().ok());
            copies.extend((port == Some(primary.port())).then_some(replica));
        }
        copies
    }

    /// The addresses of the servers that the cluster marks as failed, according to the first server that answers.
    pub async fn failed(&self) -> Vec<SocketAddr> {
        let nodes = self.maps().await.into_iter().find_map(Result::ok).unwrap_or_default();
        nodes.lines().filter_map(failed_address).collect()
    }

    /// The map of the cluster that each server has now: its answer to `CLUSTER NODES`. Servers learn changes from each
    /// other, so maps can differ for a while.
    pub async fn maps(&self) -> Vec<Result<String>> {
        let map = async |server: &Server| -> Result<String> {
            Ok(redis::cmd("CLUSTER").arg("NODES").query_async(&mut server.connection().await?).await?)
        };
        let servers = self.all_servers();
        join_all(servers.iter().map(|server| map(server))).await
    }

    /// The number of replicas per primary, as configured at the start.
    pub fn replicas_per_primary(&self) -> u16 {
        self.options.replicas_per_primary
    }

    /// The version text of the server program.
    pub fn version(&self) -> &str {
        self.binary.version()
    }

    /// The folder of logs and data.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Opens a connection to one server (not a cluster connection), with a timeout per command.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub async fn connection(&self, addr: SocketAddr) -> Result<MultiplexedConnection> {
        self.server(addr).connection().await
    }

    /// Replaces one line of a function library, and loads it on every primary.
    ///
    /// # Errors
    /// Fails when the code does not have exactly one such line, or when a primary refuses the library.
    pub async fn load_functions_with(&self, code: &str, line: &str, instead: &str) -> Result<()> {
        ensure!(code.matches(line).count() == 1, "the functions no longer have this line: {line}");
        for primary in self.primaries().await {
            let mut load = redis::cmd("FUNCTION");
            load.arg("LOAD").arg("REPLACE").arg(code.replace(line, instead));
            load.exec_async(&mut self.connection(primary).await?).await?;
        }
        Ok(())
    }

    /// Opens a connection to one server as `user`.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses the login.
    pub async fn connection_as(&self, user: User, addr: SocketAddr) -> Result<MultiplexedConnection> {
        redis_server::connection(self.server(addr).login(user)?).await
    }

    /// Opens a connection to one server without a login.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub async fn unauthenticated_connection(&self, addr: SocketAddr) -> Result<MultiplexedConnection> {
        let info = self.server(addr).login(User::Admin)?;
        redis_server::connection(info.set_redis_settings(RedisConnectionInfo::default())).await
    }

    /// The port of a server on the cluster bus.
    pub fn bus_port_of(&self, addr: SocketAddr) -> u16 {
        addr.port() - self.ports.clients + self.ports.bus
    }

    /// Kills a server (SIGKILL).
    pub fn kill(&self, addr: SocketAddr) {
        self.server(addr).process().kill();
    }

    /// Freezes a server (SIGSTOP).
    pub fn freeze(&self, addr: SocketAddr) {
        self.server(addr).process().freeze();
    }

    /// Resumes a frozen server (SIGCONT).
    pub fn thaw(&self, addr: SocketAddr) {
        self.server(addr).process().thaw();
    }

    /// Sets the clock of a running server `offset` ahead of the machine's clock, or behind it when `offset` is
    /// negative. Some servers cache the time for up to 100 ms, so the change can be visible that much later.
    ///
    /// # Errors
    /// Fails when the cluster was started without [`ClusterOptions::clocks`].
    pub fn set_clock(&self, addr: SocketAddr, offset: SignedDuration) -> Result<()> {
        self.server(addr).set_clock(offset)
    }

    /// Stops a server gracefully.
    ///
    /// # Errors
    /// Fails when the server had to be killed.
    pub async fn stop_server(&self, addr: SocketAddr) -> Result<()> {
        self.server(addr).process().stop(STOP_LIMIT).await.map(drop)
    }

    /// Kills a server if it runs, starts it again with its data, and waits until it answers. It may not be part of the
    /// cluster yet: [`Self::wait_until_whole`] waits for that.
    ///
    /// # Errors
    /// Fails when the server does not start.
    pub async fn restart(&self, addr: SocketAddr) -> Result<()> {
        self.server(addr).restart()?;
        self.server(addr).wait_until_ready().await
    }

    /// Sums the statistics of `command` over all primaries. The name is that of `INFO commandstats`: `fcall`, `wait`,
    /// `cluster|slots`.
    ///
    /// # Errors
    /// Fails when a primary does not answer.
    pub async fn command_stats(&self, command: &str) -> Result<CommandStats> {
        let field = format!("cmdstat_{command}");
        let stats = self.query_primaries("commandstats", |info| info.field(&field).map(parse_stats)).await?;
        Ok(stats.into_iter().flatten().fold(CommandStats::default(), |sum, stats| CommandStats {
            calls: sum.calls + stats.calls,
            usec: sum.usec + stats.usec,
        }))
    }

    /// Memory that all primaries use, in bytes.
    ///
    /// # Errors
    /// Fails when a primary does not answer.
    pub async fn used_memory_bytes(&self) -> Result<u64> {
        let used =
            self.query_primaries("memory", |info| info.field("used_memory")?.parse::<u64>().ok()).await?;
        Ok(used.into_iter().flatten().sum())
    }

    /// CPU time that all servers have used, replicas included.
    pub fn cpu_time(&self) -> Duration {
        let servers = self.all_servers();
        let pids = servers.iter().map(|server| server.process().pid());
        pids.filter_map(crate::procfs::cpu_time).sum()
    }

    /// Stops all servers gracefully.
    ///
    /// # Errors
    /// Fails when a server had to be killed.
    pub async fn stop(self) -> Result<()> {
        let servers = self.all_servers();
        servers.iter().for_each(|server| {
            // A frozen server would not handle the signal.
            server.process().thaw();
            server.process().term();
        });
        let all_ended = async || servers.iter().all(|server| !server.process().is_running());
        let ended = crate::until("end of the Redis servers", STOP_LIMIT, all_ended).await;
        servers.iter().for_each(|server| server.process().kill());
        ended
    }

    /// The current processes of the servers.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.all_servers().iter().map(|server| server.process()).collect()
    }

    fn spawn(options: ClusterOptions) -> Result<Self> {
        ensure!(options.primaries >= 3, "a cluster of fewer than 3 primaries cannot replace one");
        let (ports, held) = options.choose_ports()?;
        let binary = options.binary.clone().map_or_else(ServerBinary::find, Ok)?;
        let folder = options.choose_folder()?;
        let security = options.secured.then(|| Security::create(&folder, &binary)).transpose()?;
        let cluster = Self {
            servers: RwLock::default(),
            network_namespace: options.create_network_namespace(ports)?,
            binary,
            security: security.map(Arc::new),
            folder,
            ports,
            options,
            _ports: held,
        };
        (0..cluster.options.servers()).try_for_each(|_| cluster.spawn_server().map(drop))?;
        Ok(cluster)
    }

    /// Starts the server with the next number, outside of any cluster. With a network namespace, the last server of
    /// the initial cluster runs in it.
    fn spawn_server(&self) -> Result<Arc<Server>> {
        let number = u16::try_from(self.all_servers().len())?;
        let location = match &self.network_namespace {
            None => ServerLocation::Loopback,
            Some(network_namespace) if number + 1 == self.options.servers() => {
                ServerLocation::NetworkNamespace(network_namespace)
            }
            Some(network_namespace) => ServerLocation::Host(network_namespace),
        };
        let settings = self.options.settings(self.ports.bus + number);
        let options = ServerOptions {
            binary: &self.binary,
            folder: &self.folder,
            security: self.security.as_ref(),
            lifetime: self.options.lifetime,
            clocks: self.options.clocks,
        };
        let server = Server::spawn(options, location, self.ports.clients + number, &settings)?;
        let server = Arc::new(server);
        self.servers.write().unwrap_or_else(PoisonError::into_inner).push(server.clone());
        Ok(server)
    }

    fn all_servers(&self) -> Vec<Arc<Server>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server(&self, addr: SocketAddr) -> Arc<Server> {
        let found = self.all_servers().into_iter().find(|server| server.addr() == addr);
        found.unwrap_or_else(|| panic!("{addr} is not a server of this cluster"))
    }

    async fn with_role(&self, role: ServerRole) -> Vec<SocketAddr> {
        self.servers()
            .await
            .into_iter()
            .filter(|server| server.role == role)
            .map(|server| server.addr)
            .collect()
    }

    async fn query_primaries<T>(&self, section: &str, read: impl Fn(&Info) -> T) -> Result<Vec<T>> {
        let primaries = self.primaries().await;
        let infos = primaries.iter().map(async |&addr| self.server(addr).info(section).await);
        let infos = try_join_all(infos).await?;
        Ok(infos.iter().map(read).collect())
    }
}

/// Returns the address in a line of `CLUSTER NODES` (`id host:port@bus,name flags …`) whose flags contain `fail`.
fn failed_address(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ').skip(1);
    let (endpoint, flags) = (words.next()?, words.next()?);
    let failed = flags.split(',').any(|flag| flag == "fail");
    failed.then(|| endpoint.split('@').next()?.parse().ok())?
}

async fn server_view(server: &Server) -> ServerView {
    let role = query_role(server).await.unwrap_or(ServerRole::Silent);
    ServerView { addr: server.addr(), pid: server.process().pid(), role }
}

async fn query_role(server: &Server) -> Result<ServerRole> {
    let info = server.info("replication").await?;
    let role = info.field("role").context("INFO replication without a role")?;
    Ok(if role == "master" { ServerRole::Primary } else { ServerRole::Replica })
}

/// Parses `calls=5,usec=120,usec_per_call=24.00,…`.
fn parse_stats(line: &str) -> CommandStats {
    let number = |name: &str| {
        let value = line.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    CommandStats { calls: number("calls"), usec: number("usec") }
}
