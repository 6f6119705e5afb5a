//! The programs of this workspace, started with the settings that their `--help` names.

use std::{path::PathBuf, sync::Arc, time::Duration};

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
    pub(super) url: String,
    pub(super) ops_url: String,
    pub(super) process: Arc<Process>,
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) url: String,
    pub(super) process: Arc<Process>,
}

impl Node {
    /// Where buyers reach this very node.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its health, readiness and metrics are.
    pub fn ops_url(&self) -> &str {
        &self.ops_url
    }

    /// Its process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl Coordinator {
    /// Where its admin API, health and readiness are.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

/// Starts a program and waits until its `/readyz` is content.
pub(super) async fn start(launch: &Launch, readiness_at: &str) -> Result<Arc<Process>> {
    let process = launch.spawn()?;
    let readyz = format!("{readiness_at}/readyz");
    let client = Client::new();
    let ready = async || {
        let status = client.get(&readyz).send().await?.status();
        ensure!(status.is_success(), "GET {readyz} answers {status}");
        Ok(())
    };
    process.wait_until_ready(START_LIMIT, ready).await?;
    Ok(Arc::new(process))
}
