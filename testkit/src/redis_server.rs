//! One Redis (or Valkey) process: the program to use, and a standalone server for tests without a cluster.

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

/// Time limit of a start. A server loads an empty data folder in some 20 ms; the rest is for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Timeout of one command. Every command used here takes well under a millisecond, so a server that exceeds this is
/// frozen.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_000);

/// The server program to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBinary {
    path: PathBuf,
    version: String,
}

impl ServerBinary {
    /// Returns the program that `REDIS_SERVER` names, else the installed `redis-server`.
    ///
    /// # Errors
    /// Fails when neither exists, or the program does not run.
    pub fn find() -> Result<Self> {
        match env::var_os("REDIS_SERVER") {
            Some(path) => Self::at(path),
            None => Self::at(binary::installed("redis-server").context("redis-server is not installed")?),
        }
    }

    /// Returns the program at `path`.
    ///
    /// # Errors
    /// Fails when the program does not run.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let output = Command::new(&path).arg("--version").output();
        let output = output.with_context(|| format!("{} does not run", path.display()))?;
        ensure!(output.status.success(), "{} --version: {}", path.display(), output.status);
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { path, version })
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true when the program supports TLS; the Valkey from PyPI does not. The check asks for a TLS port
    /// without a key: a program with TLS reports the missing key.
    ///
    /// # Errors
    /// Fails when the program does not run.
    pub fn supports_tls(&self) -> Result<bool> {
        let output = Command::new(&self.path).args(["--port", "0", "--tls-port", "1"]).output()?;
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        Ok(!["Bad directive", "Failed finding TLS support"].iter().any(|refusal| output.contains(refusal)))
    }

    /// The output of `--version`: `Redis server v=7.0.15 …` or `Valkey server v=9.1.2 …`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// One server process and its address. A cluster consists of these.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    security: Option<Arc<Security>>,
    clock: Option<ServerClock>,
    launch: Launch,
    process: Mutex<Arc<Process>>,
}

/// Start options that all servers of a cluster share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerOptions<'a> {
    pub(crate) binary: &'a ServerBinary,
    pub(crate) folder: &'a Folder,
    pub(crate) security: Option<&'a Arc<Security>>,
    pub(crate) lifetime: Lifetime,
    /// Gives each server a clock that can be set.
    pub(crate) clocks: bool,
}

impl Server {
    /// Starts a server with its data and log in the options' folder. Returns before the server answers.
    pub(crate) fn spawn(
        options: ServerOptions<'_>,
        location: ServerLocation<'_>,
        port: u16,
        settings: &[String],
    ) -> Result<Self> {
        let ServerOptions { binary, folder, security, lifetime, clocks } = options;
        let name = format!("redis-{port}");
        let data = folder.subfolder(&name)?;
        let launch = location
            .launch(&name, binary.path(), folder.path())
            .arg(workspace_root().join("deploy/redis/redis.conf"))
            .args(match security {
                None => vec!["--port".to_owned(), port.to_string()],
                Some(security) => security.settings(port, &data)?,
            })
            .arg("--dir")
            .arg(data)
            .args(location.settings())
            .args(settings)
            .lifetime(lifetime);
        let clock = clocks.then(|| ServerClock::new(&name, folder.path())).transpose()?;
        let launch = clock.iter().fold(launch, |launch, clock| clock.apply_to(launch));
        let process = Mutex::new(Arc::new(launch.spawn()?));
        Ok(Self {
            addr: (location.address(), port).into(),
            security: security.cloned(),
            clock,
            launch,
            process,
        })
    }

    /// Sets the server's clock to `offset` from the machine's clock.
    pub(crate) fn set_clock(&self, offset: SignedDuration) -> Result<()> {
        self.clock.as_ref().context("this cluster was started without clocks that can be set")?.set(offset)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The server's process. A restart replaces it.
    pub(crate) fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the server if it runs and starts it again with the same options and data. Returns before the server
    /// answers.
    pub(crate) fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill();
        *process = Arc::new(self.launch.spawn()?);
        Ok(())
    }

    /// Opens a connection with a timeout per command. A secured server is accessed as [`User::Admin`].
    pub(crate) async fn connection(&self) -> Result<MultiplexedConnection> {
        connection(self.login(User::Admin)?).await
    }

    /// Returns the connection settings of a user. They are the same for all users when the server is not secured.
    pub(crate) fn login(&self, user: User) -> Result<ConnectionInfo> {
        match &self.security {
            Some(security) => security.login(self.addr, user),
            None => Ok(format!("redis://{}", self.addr).into_connection_info()?),
        }
    }

    /// The address in the format of `REDIS_URL`.
    pub(crate) fn url(&self) -> String {
        match &self.security {
            Some(security) => security.url(self.addr),
            None => format!("redis://{}", self.addr),
        }
    }

    /// Reads a section of `INFO`.
    pub(crate) async fn info(&self, section: &str) -> Result<Info> {
        let text = redis::cmd("INFO").arg(section).query_async(&mut self.connection().await?).await?;
        Ok(Info { text })
    }

    /// Reads the server's node id in the cluster.
    pub(crate) async fn id(&self) -> Result<String> {
        Ok(redis::cmd("CLUSTER").arg("MYID").query_async(&mut self.connection().await?).await?)
    }

    /// Waits until the server answers `PING`.
    pub(crate) async fn wait_until_ready(&self) -> Result<()> {
        let ping = async || {
            let mut connection = self.connection().await?;
            Ok(redis::cmd("PING").exec_async(&mut connection).await?)
        };
        self.process().wait_until_ready(START_LIMIT, ping).await
    }
}

/// Opens a connection with a timeout per command.
pub(crate) async fn connection(info: ConnectionInfo) -> Result<MultiplexedConnection> {
    let bounded = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT));
    Ok(Client::open(info)?.get_multiplexed_async_connection_with_config(&bounded).await?)
}

/// The network that a server runs in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerLocation<'a> {
    /// On the loopback address.
    Loopback,
    /// On the host's address on the link to a namespace.
    Host(&'a NetworkNamespace),
    /// In the namespace.
    NetworkNamespace(&'a NetworkNamespace),
}

impl ServerLocation<'_> {
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Host(namespace) => namespace.host_address(),
            Self::NetworkNamespace(namespace) => namespace.address(),
        }
    }

    fn launch(self, name: &str, program: &Path, folder: &Path) -> Launch {
        match self {
            Self::Loopback | Self::Host(_) => Launch::new(name, program, folder),
            Self::NetworkNamespace(namespace) => namespace.launch(name, folder).arg(program),
        }
    }

    /// Returns the bind settings. Servers beyond the loopback address run without protected mode: only the host and
    /// the namespace can reach them.
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
    /// Returns the value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }
}

/// A standalone server on a free port, for tests.
#[derive(Debug)]
pub struct RedisServer {
    server: Server,
    _ports: PortBlock,
    _folder: Folder,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// Fails when no server program is installed, or the server does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(&ServerBinary::find()?).await
    }

    /// Starts a server of this program and waits until it answers.
    ///
    /// # Errors
    /// Fails when the server does not start.
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

    /// The address of the server.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The address in the format of `REDIS_URL`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Opens a connection with a timeout per command.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        self.server.connection().await
    }

    /// Makes this server replicate the primary at `addr`. It logs in as a new user, so replication continues when
    /// other users lose the permission to replicate.
    ///
    /// # Errors
    /// Fails when one of the two servers refuses a command.
    pub async fn replicate_as_separate_user(
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

    /// The process, to kill, freeze or thaw. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.server.process()
    }

    /// Stops the server if it runs, starts it again with the same data, and waits until it answers.
    ///
    /// # Errors
    /// Fails when the server does not start.
    pub async fn restart(&self) -> Result<()> {
        self.server.restart()?;
        self.server.wait_until_ready().await
    }
}
