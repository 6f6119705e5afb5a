//! The programs of this workspace, started with the settings that their `--help` names.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use reqwest::Client;

use crate::{Launch, Process};

/// A node and a coordinator are ready once they have their connections to Redis: a fraction of a second, on a machine
/// that is not busy with building.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The programs that a stack is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `flashsale-node`.
    pub node: PathBuf,
    /// `flashsale-coordinator`.
    pub coordinator: PathBuf,
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

impl Node {
    pub(super) async fn start(launch: Launch, url: String, ops_url: String) -> Result<Self> {
        Ok(Self { program: Restartable::start(launch, &ops_url).await?, url, ops_url })
    }

    /// Where buyers reach this very node.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its health, readiness and metrics are.
    pub fn ops_url(&self) -> &str {
        &self.ops_url
    }

    /// Its process; another one after a restart.
    pub fn process(&self) -> Arc<Process> {
        self.program.process()
    }

    /// Ends it if it runs, starts it again as it was, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        self.program.restart(&self.ops_url).await
    }
}

impl Coordinator {
    pub(super) async fn start(launch: Launch, url: String) -> Result<Self> {
        Ok(Self { program: Restartable::start(launch, &url).await?, url })
    }

    /// Where its admin API, health and readiness are.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process; another one after a restart.
    pub fn process(&self) -> Arc<Process> {
        self.program.process()
    }

    /// Ends it if it runs, starts it again as it was, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        self.program.restart(&self.url).await
    }
}

/// A program that can be started again as it was.
#[derive(Debug)]
struct Restartable {
    launch: Launch,
    process: Mutex<Arc<Process>>,
}

impl Restartable {
    async fn start(launch: Launch, readiness_at: &str) -> Result<Self> {
        let process = Arc::new(launch.spawn()?);
        wait_until_ready(&process, readiness_at).await?;
        Ok(Self { launch, process: Mutex::new(process) })
    }

    fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn restart(&self, readiness_at: &str) -> Result<()> {
        self.process().kill();
        let process = Arc::new(self.launch.spawn()?);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process.clone();
        wait_until_ready(&process, readiness_at).await
    }
}

/// Waits until its `/readyz` is content.
async fn wait_until_ready(process: &Process, readiness_at: &str) -> Result<()> {
    let readyz = format!("{readiness_at}/readyz");
    let client = Client::new();
    let ready = async || {
        let status = client.get(&readyz).send().await?.status();
        ensure!(status.is_success(), "GET {readyz} answers {status}");
        Ok(())
    };
    process.wait_until_ready(START_LIMIT, ready).await
}
