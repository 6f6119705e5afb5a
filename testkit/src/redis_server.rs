//! One Redis (or Valkey) process: the program to use, and a server of its own for tests without a cluster.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, aio::MultiplexedConnection};

use crate::{
    Folder, Launch, Lifetime, NetworkNamespace, Process, Security, User, binary, ports::PortBlock,
    server_clock::ServerClock, workspace_root,
};

/// A server loads an empty data folder in some 20 ms; this is for a machine that is busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Every command used here takes well under a millisecond; a server that does not answer in this time is frozen.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_000);

/// The server program to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBinary {
    path: PathBuf,
    version: String,
}

impl ServerBinary {
    /// The program that `REDIS_SERVER` names, else `redis-server` from where programs are.
    ///
    /// # Errors
    /// When there is none, or it does not run.
    pub fn find() -> Result<Self> {
        match env::var_os("REDIS_SERVER") {
            Some(path) => Self::at(path),
            None => Self::at(binary::installed("redis-server").context("redis-server is not installed")?),
        }
    }

    /// The program at this path.
    ///
    /// # Errors
    /// When it does not run.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let output = Command::new(&path).arg("--version").output();
        let output = output.with_context(|| format!("{} does not run", path.display()))?;
        ensure!(output.status.success(), "{} --version: {}", path.display(), output.status);
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { path, version })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can encrypt; the Valkey from PyPI cannot. Asked for TLS without a key, one that can misses the key.
    ///
    /// # Errors
    /// When it does not run.
    pub fn speaks_tls(&self) -> Result<bool> {
        let asked = Command::new(&self.path).args(["--port", "0", "--tls-port", "1"]).output()?;
        let said = [asked.stdout, asked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Ok(!["Bad directive", "Failed finding TLS support"].iter().any(|refusal| said.contains(refusal)))
    }

    /// What it says of itself: `Redis server v=7.0.15 …` or `Valkey server v=9.1.2 …`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// A process with an address; a cluster is made of these.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    security: Option<Arc<Security>>,
    clock: Option<ServerClock>,
    launch: Launch,
    process: Mutex<Arc<Process>>,
}

/// How the servers of one cluster are started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerOptions<'a> {
    pub(crate) binary: &'a ServerBinary,
    pub(crate) folder: &'a Folder,
    pub(crate) security: Option<&'a Arc<Security>>,
    pub(crate) lifetime: Lifetime,
    /// Whether each has a clock that can be set.
    pub(crate) clocks: bool,
}

impl Server {
    /// Starts a server at this address with its data and log in the options' folder; it may not answer yet.
    pub(crate) fn spawn(
        options: ServerOptions<'_>,
        place: ServerLocation<'_>,
        port: u16,
        settings: &[String],
    ) -> Result<Self> {
        let ServerOptions { binary, folder, security, lifetime, clocks } = options;
        let name = format!("redis-{port}");
        let data = folder.subfolder(&name)?;
        let launch = place
            .launch(&name, binary.path(), folder.path())
            .arg(workspace_root().join("deploy/redis/redis.conf"))
            .args(match security {
                None => vec!["--port".to_owned(), port.to_string()],
                Some(security) => security.settings(port, &data)?,
            })
            .arg("--dir")
            .arg(data)
            .args(place.settings())
            .args(settings)
            .lifetime(lifetime);
        let clock = clocks.then(|| ServerClock::new(&name, folder.path())).transpose()?;
        let launch = clock.iter().fold(launch, |launch, clock| clock.launch(launch));
        let process = Mutex::new(Arc::new(launch.spawn()?));
        Ok(Self { addr: (place.address(), port).into(), security: security.cloned(), clock, launch, process })
    }

    /// Sets its clock relative to the machine's.
    pub(crate) fn set_clock(&self, offset: SignedDuration) -> Result<()> {
        self.clock.as_ref().context("this cluster was started without clocks that can be set")?.set(offset)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process; another one after a restart.
    pub(crate) fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts it again, as it was, over the data it left; it may not answer yet.
    pub(crate) fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill();
        *process = Arc::new(self.launch.spawn()?);
        Ok(())
    }

    /// A new connection, every command on it bounded; where users are told apart, as the one who may do all.
    pub(crate) async fn connection(&self) -> Result<MultiplexedConnection> {
        connection(self.login(User::Admin)?).await
    }

    /// How a user reaches it; where users are not told apart, how everybody does.
    pub(crate) fn login(&self, user: User) -> Result<ConnectionInfo> {
        match &self.security {
            Some(security) => security.login(self.addr, user),
            None => Ok(format!("redis://{}", self.addr).into_connection_info()?),
        }
    }

    /// Its address as `REDIS_URL` wants it.
    pub(crate) fn url(&self) -> String {
        match &self.security {
            Some(security) => security.url(self.addr),
            None => format!("redis://{}", self.addr),
        }
    }

    /// A section of `INFO`.
    pub(crate) async fn info(&self, section: &str) -> Result<Info> {
        let text = redis::cmd("INFO").arg(section).query_async(&mut self.connection().await?).await?;
        Ok(Info { text })
    }

    /// The answer of `CLUSTER INFO`, which reads like `INFO`.
    pub(crate) async fn cluster_info(&self) -> Result<Info> {
        let text = redis::cmd("CLUSTER").arg("INFO").query_async(&mut self.connection().await?).await?;
        Ok(Info { text })
    }

    /// Its name in the cluster.
    pub(crate) async fn id(&self) -> Result<String> {
        Ok(redis::cmd("CLUSTER").arg("MYID").query_async(&mut self.connection().await?).await?)
    }

    /// Waits until it answers.
    pub(crate) async fn wait_until_ready(&self) -> Result<()> {
        let ping = async || {
            let mut connection = self.connection().await?;
            Ok(redis::cmd("PING").exec_async(&mut connection).await?)
        };
        self.process().wait_until_ready(START_LIMIT, ping).await
    }
}

/// A new connection, every command on it bounded.
pub(crate) async fn connection(info: ConnectionInfo) -> Result<MultiplexedConnection> {
    let bounded = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT));
    Ok(Client::open(info)?.get_multiplexed_async_connection_with_config(&bounded).await?)
}

/// Where a server runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerLocation<'a> {
    /// Among us, for us alone.
    Loopback,
    /// Among us, in reach of an island.
    Shore(&'a NetworkNamespace),
    /// On the island.
    NetworkNamespace(&'a NetworkNamespace),
}

impl ServerLocation<'_> {
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Shore(island) => island.mainland(),
            Self::NetworkNamespace(island) => island.address(),
        }
    }

    fn launch(self, name: &str, program: &Path, folder: &Path) -> Launch {
        match self {
            Self::Loopback | Self::Shore(_) => Launch::new(name, program, folder),
            Self::NetworkNamespace(island) => island.launch(name, folder).arg(program),
        }
    }

    /// Whoever may speak to a server that listens elsewhere than on the loopback address comes over the bridge only.
    fn settings(self) -> Vec<String> {
        let mut settings = vec!["--bind".to_owned(), self.address().to_string()];
        if !matches!(self, Self::Loopback) {
            settings.extend(["--protected-mode", "no"].map(String::from));
        }
        settings
    }
}

/// The text of an `INFO` answer.
#[derive(Debug)]
pub(crate) struct Info {
    text: String,
}

impl Info {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }
}

/// One server without a cluster, on a free port, for tests.
#[derive(Debug)]
pub struct RedisServer {
    server: Server,
    _ports: PortBlock,
    _folder: Folder,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When there is no server program, or it does not come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&ServerBinary::find()?).await
    }

    /// Starts one of this program and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_with(binary: &ServerBinary) -> Result<Self> {
        let (ports, folder) = (PortBlock::take()?, Folder::temporary()?);
        let settings = ["--cluster-enabled", "no"].map(String::from);
        let options = ServerOptions {
            binary,
            folder: &folder,
            security: None,
            lifetime: Lifetime::Attached,
            clocks: false,
        };
        let server = Server::spawn(options, ServerLocation::Loopback, ports.first(), &settings)?;
        server.wait_until_ready().await?;
        Ok(Self { server, _ports: ports, _folder: folder })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Its address as `REDIS_URL` wants it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A new connection to it, every command bounded.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        self.server.connection().await
    }

    /// Copies the primary behind this connection from now on, as a user made for that: so it goes on when other users
    /// may no longer copy.
    ///
    /// # Errors
    /// When one of the two refuses.
    pub async fn copy_as_another_user(
        &self,
        primary: &mut MultiplexedConnection,
        addr: SocketAddr,
    ) -> Result<()> {
        let user = ["SETUSER", "outsider", "on", "nopass", "+@all", "~*", "&*"];
        redis::cmd("ACL").arg(&user).exec_async(primary).await?;
        let mut connection = self.connection().await?;
        for (setting, value) in [("masteruser", "outsider"), ("masterauth", "any")] {
            redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).exec_async(&mut connection).await?;
        }
        let (host, port) = (addr.ip().to_string(), addr.port());
        Ok(redis::cmd("REPLICAOF").arg(host).arg(port).exec_async(&mut connection).await?)
    }

    /// Its process, to kill, freeze or thaw it; another one after a restart.
    pub fn process(&self) -> Arc<Process> {
        self.server.process()
    }

    /// Ends it if it runs, starts it again over the same data and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        self.server.restart()?;
        self.server.wait_until_ready().await
    }
}
