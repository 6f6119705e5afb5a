//! What `up` started, as `up.json` tells it to scripts, to `down` and to the next `up`.

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
    /// Where buyers reach the sale.
    pub(crate) url: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) redis: Vec<Redis>,
    /// Where Prometheus is, if it watches.
    #[serde(default)]
    pub(crate) prometheus: Option<String>,
    pub(crate) admin_token: String,
    /// The `up` that will take all of it down; none once detached.
    pub(crate) supervisor: Option<ProcessIdentity>,
    /// Every process, in the order in which they are to be stopped.
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
pub(crate) struct Redis {
    addr: SocketAddr,
    pid: u32,
    role: ServerRole,
}

/// A process that cannot be mistaken for a later one with the same pid.
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

    /// Whether anything of it still runs.
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

impl RunningProcess {
    fn of(process: &Process) -> Self {
        Self { name: process.name().to_owned(), identity: process.identity() }
    }
}

/// Where one `up` keeps its files; a second one in the same folder is refused.
#[derive(Debug)]
pub(crate) struct LocalFolder {
    path: PathBuf,
}

impl LocalFolder {
    /// The folder at this path; without one `.local` in the workspace, wherever the command is typed.
    pub(crate) fn at(path: Option<&Path>) -> Result<Self> {
        let path = path.map_or_else(|| workspace_root().join(".local"), Path::to_owned);
        fs::create_dir_all(&path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { path: fs::canonicalize(path)? })
    }

    /// `up.json`, for scripts.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join("up.json")
    }

    /// Data and logs.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("up")
    }

    /// What the last `up` here wrote, if it did not take it away itself.
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

    /// The file is there all at once, for scripts that wait for it, and holds the admin token, so it is its owner's only.
    pub(crate) fn write(&self, running: &RunningSystem) -> Result<()> {
        let unfinished = self.path.join("up.json.unfinished");
        let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
        let mut file = file.with_context(|| format!("cannot write {}", unfinished.display()))?;
        writeln!(file, "{}", serde_json::to_string_pretty(running)?)?;
        Ok(fs::rename(unfinished, self.file())?)
    }

    pub(crate) fn forget(&self) -> Result<()> {
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Held by an `up` from its first step to its last; none if another one holds it. It goes with the process.
    pub(crate) fn try_lock(&self) -> Result<Option<File>> {
        let lock = File::options().create(true).append(true).open(self.path.join("up.lock"))?;
        Ok(lock.try_lock().is_ok().then_some(lock))
    }
}
