//! A real Redis Cluster on the loopback address, to use and to break.

mod disks;
mod failover;
mod forming;
mod growth;
mod options;
mod partition;
mod replication;
mod shared;
mod slots;
mod torn_files;

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

use forming::{Member, form, wait_until_whole};

/// Shutting down writes nothing (the append-only file is written as it goes), so it takes milliseconds.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a server says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// Serves slots.
    Primary,
    /// Copies a primary.
    Replica,
    /// Says nothing: dead or frozen.
    Silent,
}

/// A server as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// Where clients reach it.
    pub addr: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// What it says it is.
    pub role: ServerRole,
}

/// How often a command ran and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandStats {
    /// Number of calls.
    pub calls: u64,
    /// Redis CPU time in them, microseconds.
    pub usec: u64,
}

/// A running cluster; dropping it kills it, unless its processes were released.
#[derive(Debug)]
pub struct RedisCluster {
    // In this order they are dropped: the servers before the island that one of them lives on.
    servers: RwLock<Vec<Arc<Server>>>,
    island: Option<NetworkNamespace>,
    options: ClusterOptions,
    binary: ServerBinary,
    ports: ClusterPorts,
    security: Option<Arc<Security>>,
    folder: Folder,
    _ports: Option<PortBlock>,
}

impl RedisCluster {
    /// Starts the servers, forms the cluster and waits until every server says that it is whole.
    ///
    /// # Errors
    /// When a port is taken, or a server or the cluster does not come up in time.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let cluster = Self::spawn(options)?;
        let servers = cluster.all();
        try_join_all(servers.iter().map(|server| server.wait_until_ready())).await?;
        form(&cluster.members(&servers)).await?;
        cluster.wait_until_whole().await?;
        Ok(cluster)
    }

    /// Seeds as `REDIS_URL` wants them: `redis://127.0.0.1:1,redis://…`, every server.
    pub fn seeds(&self) -> String {
        let urls: Vec<String> = self.all().iter().map(|server| server.url()).collect();
        urls.join(",")
    }

    /// How a user reaches each server; in a cluster that tells nobody apart, how everybody does.
    ///
    /// # Errors
    /// When a file of ours cannot be read.
    pub fn logins(&self, user: User) -> Result<Vec<ConnectionInfo>> {
        self.all().iter().map(|server| server.login(user)).collect()
    }

    /// Certificates, users and passwords, if it is secured.
    pub fn security(&self) -> Option<&Security> {
        self.security.as_deref()
    }

    /// Every server, with the role it says it has now.
    pub async fn servers(&self) -> Vec<ServerView> {
        join_all(self.all().iter().map(|server| view(server))).await
    }

    /// The addresses of the servers that are primaries now.
    pub async fn primaries(&self) -> Vec<SocketAddr> {
        self.with_role(ServerRole::Primary).await
    }

    /// The addresses of the servers that are replicas now.
    pub async fn replicas(&self) -> Vec<SocketAddr> {
        self.with_role(ServerRole::Replica).await
    }

    /// The addresses of the servers that copy this primary now.
    pub async fn replicas_of(&self, primary: SocketAddr) -> Vec<SocketAddr> {
        let mut copies = Vec::new();
        for replica in self.replicas().await {
            let port = self.server(replica).info("replication").await.ok();
            let port = port.and_then(|info| info.field("master_port")?.parse::<u16>().ok());
            copies.extend((port == Some(primary.port())).then_some(replica));
        }
        copies
    }

    /// The addresses of the servers that the cluster has given up, as the first that answers tells it.
    pub async fn failed(&self) -> Vec<SocketAddr> {
        let map = async |server: &Server| -> Result<String> {
            Ok(redis::cmd("CLUSTER").arg("NODES").query_async(&mut server.connection().await?).await?)
        };
        let servers = self.all();
        let maps = join_all(servers.iter().map(|server| map(server))).await;
        let nodes = maps.into_iter().find_map(Result::ok).unwrap_or_default();
        nodes.lines().filter_map(failed_in).collect()
    }

    /// How many replicas each primary was given.
    pub fn replicas_per_primary(&self) -> u16 {
        self.options.replicas_per_primary
    }

    /// What the server program says of itself.
    pub fn version(&self) -> &str {
        self.binary.version()
    }

    /// Where logs and data are.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A new connection to one server (not a cluster connection), every command bounded.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connection(&self, addr: SocketAddr) -> Result<MultiplexedConnection> {
        self.server(addr).connection().await
    }

    /// The same as another user than the one who may do all.
    ///
    /// # Errors
    /// When it does not answer, or does not let the user in.
    pub async fn connection_as(&self, user: User, addr: SocketAddr) -> Result<MultiplexedConnection> {
        redis_server::connection(self.server(addr).login(user)?).await
    }

    /// The same as nobody: without a login.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connection_of_nobody(&self, addr: SocketAddr) -> Result<MultiplexedConnection> {
        let info = self.server(addr).login(User::Admin)?;
        redis_server::connection(info.set_redis_settings(RedisConnectionInfo::default())).await
    }

    /// The port of a server's bus.
    pub fn bus_port_of(&self, addr: SocketAddr) -> u16 {
        addr.port() - self.ports.clients + self.ports.bus
    }

    /// Kills a server (SIGKILL).
    pub fn kill(&self, addr: SocketAddr) {
        self.server(addr).process().kill();
    }

    /// Stops a server in the middle of whatever it does (SIGSTOP).
    pub fn freeze(&self, addr: SocketAddr) {
        self.server(addr).process().freeze();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self, addr: SocketAddr) {
        self.server(addr).process().thaw();
    }

    /// Sets a server's clock while it runs: so far ahead of the machine's, or behind it where `offset` is negative. Some
    /// servers keep the time for up to 100 ms, so they show it a moment later.
    ///
    /// # Errors
    /// When the cluster was started without [`ClusterOptions::clocks`].
    pub fn set_clock(&self, addr: SocketAddr, offset: SignedDuration) -> Result<()> {
        self.server(addr).set_clock(offset)
    }

    /// Ends a server in good order.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop_server(&self, addr: SocketAddr) -> Result<()> {
        self.server(addr).process().stop(STOP_LIMIT).await.map(drop)
    }

    /// Ends a server if it runs, starts it again over the data it left, and waits until it answers; see
    /// [`Self::wait_until_whole`] for when it has its place in the cluster again.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self, addr: SocketAddr) -> Result<()> {
        self.server(addr).restart()?;
        self.server(addr).wait_until_ready().await
    }

    /// Waits until all slots are served, all servers agree on that, and every replica has its primary's data.
    ///
    /// # Errors
    /// When that is not so in time.
    pub async fn wait_until_whole(&self) -> Result<()> {
        wait_until_whole(&self.all(), self.options.replicas_per_primary).await
    }

    /// How often `command` (as in `INFO commandstats`: `fcall`, `wait`, `cluster|slots`) ran on all primaries.
    ///
    /// # Errors
    /// When a primary does not answer.
    pub async fn command_stats(&self, command: &str) -> Result<CommandStats> {
        let field = format!("cmdstat_{command}");
        let stats = self.ask_primaries("commandstats", |info| info.field(&field).map(parse_stats)).await?;
        Ok(stats.into_iter().flatten().fold(CommandStats::default(), |sum, stats| CommandStats {
            calls: sum.calls + stats.calls,
            usec: sum.usec + stats.usec,
        }))
    }

    /// Bytes of memory that all primaries use.
    ///
    /// # Errors
    /// When a primary does not answer.
    pub async fn used_memory_bytes(&self) -> Result<u64> {
        let used =
            self.ask_primaries("memory", |info| info.field("used_memory")?.parse::<u64>().ok()).await?;
        Ok(used.into_iter().flatten().sum())
    }

    /// CPU time that all servers used so far, replicas too.
    pub fn cpu_time(&self) -> Duration {
        let servers = self.all();
        let pids = servers.iter().map(|server| server.process().pid());
        pids.filter_map(crate::procfs::cpu_time).sum()
    }

    /// Ends all servers in good order.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(self) -> Result<()> {
        let servers = self.all();
        servers.iter().for_each(|server| {
            // A frozen server would leave its end pending.
            server.process().thaw();
            server.process().term();
        });
        let all_ended = async || servers.iter().all(|server| !server.process().is_running());
        let ended = crate::until("end of the Redis servers", STOP_LIMIT, all_ended).await;
        servers.iter().for_each(|server| server.process().kill());
        ended
    }

    /// The servers' processes as they are now.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.all().iter().map(|server| server.process()).collect()
    }

    fn spawn(options: ClusterOptions) -> Result<Self> {
        ensure!(options.primaries >= 3, "a cluster of fewer than 3 primaries cannot replace one");
        let (ports, held) = options.choose_ports()?;
        let binary = options.binary.clone().map_or_else(ServerBinary::find, Ok)?;
        let folder = options.choose_folder()?;
        let security = options.secured.then(|| Security::make(&folder, &binary)).transpose()?;
        let cluster = Self {
            servers: RwLock::default(),
            island: options.choose_island(ports)?,
            binary,
            security: security.map(Arc::new),
            folder,
            ports,
            options,
            _ports: held,
        };
        (0..cluster.options.servers()).try_for_each(|_| cluster.spawn_one().map(drop))?;
        Ok(cluster)
    }

    /// Starts the server of the next number; it belongs to nothing yet. The last one of the first ones has the island.
    fn spawn_one(&self) -> Result<Arc<Server>> {
        let number = u16::try_from(self.all().len())?;
        let place = match &self.island {
            None => ServerLocation::Loopback,
            Some(island) if number + 1 == self.options.servers() => ServerLocation::NetworkNamespace(island),
            Some(island) => ServerLocation::Shore(island),
        };
        let settings = self.options.settings(self.ports.bus + number);
        let options = ServerOptions {
            binary: &self.binary,
            folder: &self.folder,
            security: self.security.as_ref(),
            lifetime: self.options.lifetime,
            clocks: self.options.clocks,
        };
        let server = Server::spawn(options, place, self.ports.clients + number, &settings)?;
        let server = Arc::new(server);
        self.servers.write().unwrap_or_else(PoisonError::into_inner).push(server.clone());
        Ok(server)
    }

    /// The first servers are primaries; the others are dealt to them in turn.
    fn members<'a>(&self, servers: &'a [Arc<Server>]) -> Vec<Member<'a>> {
        let primaries = usize::from(self.options.primaries);
        let member = |(i, server): (usize, &'a Arc<Server>)| Member {
            server,
            copies: (i >= primaries).then(|| i % primaries),
        };
        servers.iter().enumerate().map(member).collect()
    }

    fn all(&self) -> Vec<Arc<Server>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server(&self, addr: SocketAddr) -> Arc<Server> {
        let found = self.all().into_iter().find(|server| server.addr() == addr);
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

    async fn ask_primaries<T>(&self, section: &str, read: impl Fn(&Info) -> T) -> Result<Vec<T>> {
        let primaries = self.primaries().await;
        let infos = primaries.iter().map(async |&addr| self.server(addr).info(section).await);
        let infos = try_join_all(infos).await?;
        Ok(infos.iter().map(read).collect())
    }
}

/// The address in a line of `CLUSTER NODES` (`id host:port@bus,name flags …`), where its flags say `fail`.
fn failed_in(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ').skip(1);
    let (endpoint, flags) = (words.next()?, words.next()?);
    let failed = flags.split(',').any(|flag| flag == "fail");
    failed.then(|| endpoint.split('@').next()?.parse().ok())?
}

async fn view(server: &Server) -> ServerView {
    let role = ask_role(server).await.unwrap_or(ServerRole::Silent);
    ServerView { addr: server.addr(), pid: server.process().pid(), role }
}

async fn ask_role(server: &Server) -> Result<ServerRole> {
    let info = server.info("replication").await?;
    let role = info.field("role").context("INFO replication without a role")?;
    Ok(if role == "master" { ServerRole::Primary } else { ServerRole::Replica })
}

/// Reads `calls=5,usec=120,usec_per_call=24.00,…`.
fn parse_stats(line: &str) -> CommandStats {
    let number = |name: &str| {
        let value = line.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    CommandStats { calls: number("calls"), usec: number("usec") }
}
