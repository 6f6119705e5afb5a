//! A private PostgreSQL server: its own folder and port, run by an unprivileged user. It touches nothing of a server that
//! the system runs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Launch, Lifetime, Process, binary::installed, procfs, until_ok};

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
            if let Some(user) = other_user()? {
                chown(&copy, Some(user.uid), Some(user.gid))?;
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
        if let Some(user) = other_user()? {
            // The user needs the way to the folder, and nothing else in it.
            fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o711))?;
            if let Some(parent) = self.folder.parent().filter(|parent| is_private(parent)) {
                fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
            }
            ensure_way_to(&self.folder)?;
            chown(&data, Some(user.uid), Some(user.gid))?;
        }
        let (launcher, arguments) = as_user(&program("initdb")?, None)?;
        let output = Command::new(launcher)
            .args(arguments)
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", USER, "-D"])
            .arg(&data)
            .output()?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn spawn(&self) -> Result<Arc<Process>> {
        // The kernel forgets the signal of an attached process when the process changes its user.
        let death_signal = (self.lifetime == Lifetime::Attached).then_some("--pdeathsig=KILL");
        let (launcher, arguments) = as_user(&program("postgres")?, death_signal)?;
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

struct UnixUser {
    uid: u32,
    gid: u32,
}

/// Returns the user that runs the server, if it must be another one than this process's.
fn other_user() -> Result<Option<UnixUser>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.split(':').next() == Some(USER));
    let line =
        line.with_context(|| format!("the user {USER} does not exist; install the package postgresql"))?;
    let mut numbers = line.split(':').skip(2);
    let mut number = || numbers.next().and_then(|number| number.parse().ok()).context("/etc/passwd");
    Ok(Some(UnixUser { uid: number()?, gid: number()? }))
}

/// Returns the command that runs a program as the server's user.
fn as_user(program: &Path, option: Option<&str>) -> Result<(PathBuf, Vec<String>)> {
    Ok(match other_user()? {
        None => (program.to_owned(), Vec::new()),
        Some(UnixUser { uid, gid }) => {
            let ids = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()];
            let option = option.map(str::to_owned);
            let arguments = ids.into_iter().chain(option).chain([program.display().to_string()]);
            (installed("setpriv").context("setpriv is not installed")?, arguments.collect())
        }
    })
}

/// Checks that every user can enter the folder. Folders above those of the server are not changed.
fn ensure_way_to(folder: &Path) -> Result<()> {
    let is_closed =
        |folder: &&Path| fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 == 0);
    match folder.ancestors().find(is_closed) {
        None => Ok(()),
        Some(closed) => bail!(
            "PostgreSQL refuses to run as root, and the user {USER} cannot enter {}; use a folder that every user can \
             enter, or start this as another user",
            closed.display()
        ),
    }
}

fn is_private(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o077 == 0)
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
