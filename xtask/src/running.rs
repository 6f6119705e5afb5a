//! `up.json`: the record of a running `up`, for scripts, for `down` and for the next `up`.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::{Monitoring, Process, ServerRole, Stack, procfs::ProcessIdentity, stack, workspace_root};

/// Everything that one `up` started.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningSystem {
    /// Address of the sale for buyers.
    pub(crate) url: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) coordinators: Vec<Coordinator>,
    #[serde(default)]
    pub(crate) ledgers: Vec<Ledger>,
    /// URL of the ledgers' database.
    #[serde(default)]
    pub(crate) postgres: Option<String>,
    pub(crate) redis: Vec<Redis>,
    /// Address of Prometheus, when the system is observed.
    #[serde(default)]
    pub(crate) prometheus: Option<String>,
    pub(crate) admin_token: String,
    /// The `up` process that will stop everything. `None` when detached.
    pub(crate) supervisor: Option<ProcessIdentity>,
    /// All processes, in the order in which they must be stopped.
    pub(crate) processes: Vec<RunningProcess>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    url: String,
    metrics: String,
    pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Coordinator {
    url: String,
    pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ledger {
    url: String,
    pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Redis {
    addr: SocketAddr,
    pid: u32,
    role: ServerRole,
}

/// A process, identified so that a later process with the same pid is never mistaken for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunningProcess {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) identity: ProcessIdentity,
}

impl RunningSystem {
    pub(crate) async fn of(stack: &Stack, detached: bool) -> Self {
        let servers = stack.redis().servers().await;
        Self {
            url: stack.url(),
            nodes: stack.nodes().iter().map(|node| Node::of(node)).collect(),
            coordinators: stack
                .coordinators()
                .iter()
                .map(|coordinator| Coordinator::of(coordinator))
                .collect(),
            ledgers: stack.ledgers().iter().map(|ledger| Ledger::of(ledger)).collect(),
            postgres: stack.postgres().map(|postgres| postgres.url()),
            redis: servers
                .iter()
                .map(|server| Redis { addr: server.addr, pid: server.pid, role: server.role })
                .collect(),
            prometheus: stack.monitoring().map(Monitoring::url),
            admin_token: stack.admin_token().to_owned(),
            supervisor: ProcessIdentity::of(process::id()).filter(|_| !detached),
            processes: stack.processes().iter().map(|process| RunningProcess::of(process)).collect(),
        }
    }

    /// Returns true when at least one of the processes still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.supervisor.is_some_and(ProcessIdentity::is_running)
            || self.processes.iter().any(|started| started.identity.is_running())
    }
}

impl Node {
    fn of(node: &stack::Node) -> Self {
        let metrics = format!("{}/metrics", node.ops_url());
        Self { url: node.url().to_owned(), metrics, pid: node.process().pid() }
    }
}

impl Coordinator {
    fn of(coordinator: &stack::Coordinator) -> Self {
        Self { url: coordinator.url().to_owned(), pid: coordinator.process().pid() }
    }
}

impl Ledger {
    fn of(ledger: &stack::Ledger) -> Self {
        Self { url: ledger.url().to_owned(), pid: ledger.process().pid() }
    }
}

impl RunningProcess {
    fn of(process: &Process) -> Self {
        Self { name: process.name().to_owned(), identity: process.identity() }
    }
}

/// The folder in which one `up` keeps its files. A second `up` in the same folder is refused.
#[derive(Debug)]
pub(crate) struct LocalFolder {
    path: PathBuf,
}

impl LocalFolder {
    /// Opens the folder at this path. Without a path, uses `.local` in the workspace, from any current directory.
    pub(crate) fn at(path: Option<&Path>) -> Result<Self> {
        let path = path.map_or_else(|| workspace_root().join(".local"), Path::to_owned);
        fs::create_dir_all(&path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { path: fs::canonicalize(path)? })
    }

    /// Path of `up.json`.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join("up.json")
    }

    /// Folder for data and logs.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("up")
    }

    /// Reads `up.json`. Returns `None` when no `up` runs here and the last one removed its file.
    pub(crate) fn read(&self) -> Result<Option<RunningSystem>> {
        let file = self.file();
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is not what `up` writes", file.display()))
    }

    /// Writes `up.json`. The file is renamed into place, so that scripts that wait for it never read half of it. It
    /// contains the admin token, so only its owner can read it.
    pub(crate) fn write(&self, running: &RunningSystem) -> Result<()> {
        let unfinished = self.path.join("up.json.unfinished");
        let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
        let mut file = file.with_context(|| format!("cannot write {}", unfinished.display()))?;
        writeln!(file, "{}", serde_json::to_string_pretty(running)?)?;
        Ok(fs::rename(unfinished, self.file())?)
    }

    pub(crate) fn remove_file(&self) -> Result<()> {
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes the lock that an `up` holds from its first step to its last. Returns `None` when another `up` holds it.
    /// The lock is released when the process ends.
    pub(crate) fn try_lock(&self) -> Result<Option<File>> {
        let lock = File::options().create(true).append(true).open(self.path.join("up.lock"))?;
        Ok(lock.try_lock().is_ok().then_some(lock))
    }
}
