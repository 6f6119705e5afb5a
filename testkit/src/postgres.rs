//! A private PostgreSQL server: its own folder and port, run by an unprivileged user. It touches nothing of a server that
//! the system runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Launch, Lifetime, Process,
    binary::installed,
    procfs,
    unix_user::{UnixUser, command_as},
    until_ok,
};

/// Time limit of a start. After a crash the server replays its log first.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Folder of Debian's packages, which put these programs on no search path.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";
/// User of Debian's packages. PostgreSQL refuses to run as root.
const USER: &str = "postgres";

/// Port and folder of a server.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The port on loopback.
    pub port: u16,
    /// A new folder for its data and log.
    pub folder: PathBuf,
    /// Defines if the server may outlive its owner.
    pub lifetime: Lifetime,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    process: Mutex<Arc<Process>>,
    options: PostgresOptions,
}

impl Postgres {
    /// Creates a server with an empty database `orders`, starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// Fails when PostgreSQL is not installed, or cannot bind its port.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        options.create_data()?;
        let process = options.spawn().await?;
        let server = Self { process: Mutex::new(process), options };
        server.options.query("postgres", "CREATE DATABASE orders")?;
        Ok(server)
    }

    /// The URL of the database, for programs on this machine.
    pub fn url(&self) -> String {
        format!("postgresql://{USER}@127.0.0.1:{}/orders?sslmode=disable", self.options.port)
    }

    /// The server's first process, which starts one for each connection. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills all processes of the server.
    pub fn kill(&self) {
        self.signal_children(Signal::KILL);
        self.process().kill();
    }

    /// Lets the server offer TLS, with `tls.crt` and `tls.key` of this folder. Connections without TLS stay possible.
    ///
    /// # Errors
    /// Fails when a file cannot be copied, or the server refuses them.
    pub fn use_certificates(&self, folder: &Path) -> Result<()> {
        for file in ["tls.crt", "tls.key"] {
            let copy = self.options.data().join(file);
            fs::copy(folder.join(file), &copy)?;
            // The server refuses a key that others may read.
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
            if let Some(user) = user()? {
                user.take(&copy)?;
            }
        }
        for setting in ["ssl_cert_file = 'tls.crt'", "ssl_key_file = 'tls.key'", "ssl = on"] {
            self.sql(&format!("ALTER SYSTEM SET {setting}"))?;
        }
        self.sql("SELECT pg_reload_conf()").map(drop)
    }

    /// Asks the server to end, although clients may be connected, and waits. Kills it after `limit`.
    ///
    /// # Errors
    /// Fails when the server had to be killed.
    pub async fn stop(&self, limit: Duration) -> Result<()> {
        let process = self.process();
        process.interrupt();
        let ended = process.wait(limit).await;
        self.kill();
        ended.map(drop)
    }

    /// Freezes all processes of the server: connections stay open and get no answers.
    pub fn freeze(&self) {
        self.process().freeze();
        self.signal_children(Signal::STOP);
    }

    /// Resumes a frozen server.
    pub fn thaw(&self) {
        self.signal_children(Signal::CONT);
        self.process().thaw();
    }

    /// Each connection has a process in a session of its own, which a signal to the first process's group does not reach.
    fn signal_children(&self, signal: Signal) {
        for child in procfs::children(self.process().pid()) {
            if let Some(child) = Pid::from_raw(child.cast_signed()) {
                // It may have ended in the meantime.
                kill_process(child, signal).ok();
            }
        }
    }

    /// Kills the server if it runs, starts it again, and waits until it accepts connections.
    ///
    /// # Errors
    /// Fails when the server does not start.
    pub async fn restart(&self) -> Result<()> {
        self.kill();
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = self.options.spawn().await?;
        Ok(())
    }

    /// Runs SQL in the database `orders`, and returns the rows: a line each, with `|` between columns.
    ///
    /// # Errors
    /// Fails when the server refuses the SQL.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.options.query("orders", sql)
    }
}

impl PostgresOptions {
    fn query(&self, database: &str, sql: &str) -> Result<String> {
        let port = self.port.to_string();
        let mut psql = Command::new(program("psql")?);
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER]);
        let output = psql.args(["-p", &port, "-d", database, "-c", sql]).output()?;
        ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn create_data(&self) -> Result<()> {
        let data = self.data();
        fs::create_dir_all(&data)?;
        let user = user()?;
        if let Some(user) = user {
            user.own(&data)?;
        }
        let (launcher, arguments) = command_as(user, &program("initdb")?, Lifetime::Detached)?;
        let output = Command::new(launcher)
            .args(arguments)
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", USER, "-D"])
            .arg(&data)
            .output()?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn spawn(&self) -> Result<Arc<Process>> {
        let (launcher, arguments) = command_as(user()?, &program("postgres")?, self.lifetime)?;
        let name = format!("postgres-{}", self.port);
        let process = Launch::new(name, launcher, &self.folder)
            .args(arguments)
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "shared_buffers=64MB"])
            .lifetime(self.lifetime)
            .spawn()?;
        let ready = async || self.query("postgres", "SELECT 1").map(drop);
        until_ok("PostgreSQL", START_LIMIT, ready).await.with_context(|| process.log_tail())?;
        Ok(Arc::new(process))
    }
}

/// Returns the user that runs the server, if it must be another one than this process's.
fn user() -> Result<Option<UnixUser>> {
    UnixUser::of_server(USER, "postgresql")
}

/// Returns the newest installed version of a program of PostgreSQL.
///
/// # Errors
/// Fails when PostgreSQL is not installed.
pub fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(DEBIAN_FOLDER).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin").join(name)))
        })
        .filter(|(_, program)| program.is_file())
        .collect();
    versions.sort();
    let newest = versions.pop().map(|(_, program)| program);
    newest.or_else(|| installed(name)).with_context(|| format!("{name} of PostgreSQL is not installed"))
}
