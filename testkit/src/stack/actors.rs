//! Running nodes, coordinators and ledgers. Their settings are those that `--help` documents.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use reqwest::Client;

use crate::{Launch, Process};

/// Time limit of a start. A process is ready once it is connected to Redis: a fraction of a second, unless the machine
/// is busy compiling.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The programs of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `flashsale-node`.
    pub node: PathBuf,
    /// `flashsale-coordinator`.
    pub coordinator: PathBuf,
    /// `flashsale-ledger`; `None` for that of this workspace, which is then built when it is needed.
    pub ledger: Option<PathBuf>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    url: String,
    ops_url: String,
    program: Restartable,
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    url: String,
    program: Restartable,
}

/// A running ledger.
#[derive(Debug)]
pub struct Ledger {
    url: String,
    program: Restartable,
}

impl Node {
    pub(super) async fn start(launch: Launch, url: String, ops_url: String) -> Result<Self> {
        Ok(Self { program: Restartable::start(launch, &ops_url).await?, url, ops_url })
    }

    /// The node's URL for buyers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of its health, readiness and metrics.
    pub fn ops_url(&self) -> &str {
        &self.ops_url
    }

    /// The node's process. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.program.process()
    }

    /// Kills the node if it runs, starts it again with the same settings, and waits until it is ready.
    ///
    /// # Errors
    /// Fails when the node does not start.
    pub async fn restart(&self) -> Result<()> {
        self.program.restart(&self.ops_url).await
    }
}

impl Coordinator {
    pub(super) async fn start(launch: Launch, url: String) -> Result<Self> {
        Ok(Self { program: Restartable::start(launch, &url).await?, url })
    }

    /// The URL of its admin API, health and readiness.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The coordinator's process. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.program.process()
    }

    /// Kills the coordinator if it runs, starts it again with the same settings, and waits until it is ready.
    ///
    /// # Errors
    /// Fails when the coordinator does not start.
    pub async fn restart(&self) -> Result<()> {
        self.program.restart(&self.url).await
    }
}

impl Ledger {
    pub(super) async fn start(launch: Launch, url: String) -> Result<Self> {
        Ok(Self { program: Restartable::start(launch, &url).await?, url })
    }

    /// The URL of its orders API, health, readiness and metrics.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The ledger's process. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.program.process()
    }

    /// Kills the ledger if it runs, starts it again with the same settings, and waits until it is ready.
    ///
    /// # Errors
    /// Fails when the ledger does not start.
    pub async fn restart(&self) -> Result<()> {
        self.program.restart(&self.url).await
    }
}

/// A program that can be restarted with the same settings.
#[derive(Debug)]
struct Restartable {
    launch: Launch,
    process: Mutex<Arc<Process>>,
}

impl Restartable {
    async fn start(launch: Launch, base_url: &str) -> Result<Self> {
        let process = Arc::new(launch.spawn()?);
        wait_until_ready(&process, base_url).await?;
        Ok(Self { launch, process: Mutex::new(process) })
    }

    fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn restart(&self, base_url: &str) -> Result<()> {
        self.process().kill();
        let process = Arc::new(self.launch.spawn()?);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process.clone();
        wait_until_ready(&process, base_url).await
    }
}

/// Waits until `/readyz` answers with success.
async fn wait_until_ready(process: &Process, base_url: &str) -> Result<()> {
    let readyz = format!("{base_url}/readyz");
    let client = Client::new();
    let ready = async || {
        let status = client.get(&readyz).send().await?.status();
        ensure!(status.is_success(), "GET {readyz} answers {status}");
        Ok(())
    };
    process.wait_until_ready(START_LIMIT, ready).await
}
