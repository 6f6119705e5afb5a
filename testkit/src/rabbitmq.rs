//! A private RabbitMQ server: its own folder, ports and cookie, run by an unprivileged user. It touches nothing of a broker
//! that the system runs: it registers at a port mapper of its own, and all ports are on loopback.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Launch, Lifetime, Process,
    binary::installed,
    ports::{is_free, loopback},
    unix_user::{UnixUser, command_as},
    until,
};

/// Time limit of a start. After a kill the server recovers its queues first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Folder of the package's programs. Those in `/usr/sbin` are wrappers that run them for the system's own broker.
const PACKAGE_FOLDER: &str = "/usr/lib/rabbitmq/bin";
/// User of Debian's package.
const USER: &str = "rabbitmq";
/// The line after which the server accepts connections.
const STARTED: &str = "Server startup complete";
/// One scheduler, and no busy waiting: the test shares the machine's cores.
const ERLANG_FLAGS: &str =
    "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none";

/// Ports and folder of a server.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions {
    /// The first of three adjacent ports on loopback: for clients, for commands, and for the port mapper.
    pub port: u16,
    /// A new folder for its data and log.
    pub folder: PathBuf,
    /// Defines if the server may outlive its owner.
    pub lifetime: Lifetime,
}

/// A running server.
#[derive(Debug)]
pub struct RabbitMq {
    // Dropped before the port mapper.
    process: Mutex<Arc<Process>>,
    port_mapper: Arc<Process>,
    options: RabbitMqOptions,
}

impl RabbitMq {
    /// Starts a server, and waits until it accepts connections. The user is `guest` with the password `guest`.
    ///
    /// # Errors
    /// Fails when RabbitMQ is not installed, or a port is taken.
    pub async fn start(options: RabbitMqOptions) -> Result<Self> {
        let data = options.data();
        fs::create_dir_all(&data)?;
        if let Some(user) = user()? {
            user.own(&data)?;
        }
        let port_mapper = Arc::new(options.start_port_mapper().await?);
        let process = Mutex::new(options.spawn().await?);
        Ok(Self { process, port_mapper, options })
    }

    /// Returns true if RabbitMQ is installed.
    pub fn is_installed() -> bool {
        server_program().is_ok()
    }

    /// The URL of the broker, for programs on this machine.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}", loopback(self.options.port))
    }

    /// The server. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All processes, in the order in which they must be stopped.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        vec![self.process(), self.port_mapper.clone()]
    }

    /// Lets the processes outlive this value; see [`Process::release`].
    pub fn release(&self) {
        self.process().release();
        self.port_mapper.release();
    }

    /// Kills the server.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Freezes the server: connections stay open and get no answers.
    pub fn freeze(&self) {
        self.process().freeze_group();
    }

    /// Resumes a frozen server.
    pub fn thaw(&self) {
        self.process().thaw_group();
    }

    /// Asks the server to end, and waits. Kills it after `limit`.
    ///
    /// # Errors
    /// Fails when the server had to be killed.
    pub async fn stop(&self, limit: Duration) -> Result<()> {
        self.process().stop(limit).await.map(drop)
    }

    /// Kills the server if it runs, starts it again with its data, and waits until it accepts connections.
    ///
    /// # Errors
    /// Fails when the server does not start.
    pub async fn restart(&self) -> Result<()> {
        self.kill();
        until("the ports are free", START_LIMIT, async || is_free(self.options.port)).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = self.options.spawn().await?;
        Ok(())
    }

    /// Blocks publishers, as a broker without free memory does.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub fn block_publishers(&self) -> Result<()> {
        self.control(&["set_vm_memory_high_watermark", "0"]).map(drop)
    }

    /// Accepts messages again.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub fn unblock_publishers(&self) -> Result<()> {
        self.control(&["set_vm_memory_high_watermark", "0.4"]).map(drop)
    }

    /// Runs a command of `rabbitmqctl`, and returns its output.
    ///
    /// # Errors
    /// Fails when the command does.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let program = Path::new(PACKAGE_FOLDER).join("rabbitmqctl");
        let (launcher, first) = command_as(user()?, &program, Lifetime::Detached)?;
        let mut command = Command::new(launcher);
        command.args(first).arg("--quiet").args(arguments).envs(self.options.environment());
        // A folder that the user may read: Erlang looks through the current one.
        let output = command.current_dir("/").output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl RabbitMqOptions {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.data().join(name).display().to_string();
        let data = self.data().display().to_string();
        vec![
            ("HOME", data.clone()),
            // The script then becomes the server, instead of a parent that ends before it.
            ("RUNNING_UNDER_SYSTEMD", "true".into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_EPMD_PORT", (self.port + 2).to_string()),
            ("RABBITMQ_CONFIG_FILE", file("rabbitmq")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_DIST_PORT", (self.port + 1).to_string()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins")),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_LOG_BASE", data.clone()),
            ("RABBITMQ_MNESIA_BASE", data),
            ("RABBITMQ_NODENAME", format!("rabbit-{}@localhost", self.port)),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", self.port.to_string()),
            ("RABBITMQ_PID_FILE", file("pid")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG_FLAGS.into()),
        ]
    }

    fn launch(&self, name: &str, program: &Path) -> Result<Launch> {
        let (launcher, arguments) = command_as(user()?, program, self.lifetime)?;
        let launch = Launch::new(format!("{name}-{}", self.port), launcher, &self.folder).args(arguments);
        let launch = launch.lifetime(self.lifetime);
        Ok(self.environment().into_iter().fold(launch, |launch, (name, value)| launch.env(name, value)))
    }

    /// Without one of its own, the server would start one that outlives it.
    async fn start_port_mapper(&self) -> Result<Process> {
        let port = self.port + 2;
        let program = installed("epmd").context("epmd of Erlang is not installed")?;
        let process = self.launch("epmd", &program)?.args(["-address", "127.0.0.1"]).spawn()?;
        until("the port mapper", START_LIMIT, async || !is_free(port))
            .await
            .with_context(|| process.log_tail())?;
        Ok(process)
    }

    async fn spawn(&self) -> Result<Arc<Process>> {
        let process = self.launch("rabbitmq", &server_program()?)?;
        let started_before = starts(&self.folder.join(format!("rabbitmq-{}.log", self.port)));
        let process = process.spawn()?;
        let ready = async || {
            ensure!(starts(process.log()) > started_before, "it is starting");
            Ok(())
        };
        process.wait_until_ready(START_LIMIT, ready).await?;
        Ok(Arc::new(process))
    }
}

fn user() -> Result<Option<UnixUser>> {
    UnixUser::of_server(USER, "rabbitmq-server")
}

fn server_program() -> Result<PathBuf> {
    let program = Path::new(PACKAGE_FOLDER).join("rabbitmq-server");
    ensure!(program.is_file(), "rabbitmq-server is not installed");
    Ok(program)
}

/// Returns how often the server has started, according to its log.
fn starts(log: &Path) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches(STARTED).count()
}
