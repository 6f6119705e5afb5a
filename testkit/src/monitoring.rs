//! Monitoring of a stack: Prometheus and the Redis exporter, with the deployed configuration. Only the targets differ.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Launch, Lifetime, Process, binary::installed, ports::loopback, workspace_root};

/// Prometheus replays the data of an earlier run before it is ready. Here the folder is empty, so it starts faster.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Before it ends, Prometheus writes the data in memory to disk.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Ports and files of Prometheus and the exporter.
#[derive(Clone, Debug)]
pub struct MonitoringOptions {
    /// The port of Prometheus.
    pub prometheus: u16,
    /// The port of the exporter.
    pub exporter: u16,
    /// The folder for configuration, targets, logs and time series.
    pub folder: PathBuf,
    /// Defines if both processes may outlive their owner.
    pub lifetime: Lifetime,
}

/// The addresses that Prometheus scrapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The operations ports of the nodes.
    pub nodes: Vec<SocketAddr>,
    /// The coordinators.
    pub coordinators: Vec<SocketAddr>,
    /// The ledgers.
    pub ledgers: Vec<SocketAddr>,
    /// The Redis servers, including replicas.
    pub redis: Vec<SocketAddr>,
}

/// A running Prometheus with its Redis exporter.
#[derive(Debug)]
pub struct Monitoring {
    prometheus: Arc<Process>,
    exporter: Arc<Process>,
    options: MonitoringOptions,
}

impl Monitoring {
    /// Starts both and waits until they answer.
    ///
    /// # Errors
    /// Fails when one of them is not installed, rejects its configuration, or cannot bind its port.
    pub async fn start(options: MonitoringOptions, targets: &Targets) -> Result<Self> {
        options.copy_configuration()?;
        options.write_targets(targets)?;
        let exporter = start_and_wait(&options.launch_exporter()?, options.exporter, "health").await?;
        let prometheus = start_and_wait(&options.launch_prometheus()?, options.prometheus, "-/ready").await?;
        Ok(Self { prometheus, exporter, options })
    }

    /// The URL of Prometheus.
    pub fn url(&self) -> String {
        format!("http://{}", loopback(self.options.prometheus))
    }

    /// Replaces the targets. Prometheus notices the changed files without a restart.
    ///
    /// # Errors
    /// Fails when the target files cannot be written.
    pub fn set_targets(&self, targets: &Targets) -> Result<()> {
        self.options.write_targets(targets)
    }

    /// The processes, in the order in which they must be stopped.
    pub fn processes(&self) -> [Arc<Process>; 2] {
        [self.prometheus.clone(), self.exporter.clone()]
    }

    /// Stops both gracefully.
    ///
    /// # Errors
    /// Fails when a process had to be killed.
    pub async fn stop(self) -> Result<()> {
        for process in self.processes() {
            process.stop(STOP_LIMIT).await?;
        }
        Ok(())
    }
}

/// Starts a process and waits until `GET path` succeeds.
async fn start_and_wait(launch: &Launch, port: u16, path: &str) -> Result<Arc<Process>> {
    let (process, url) = (Arc::new(launch.spawn()?), format!("http://{}/{path}", loopback(port)));
    let answers = async || {
        let status = reqwest::get(&url).await?.status();
        ensure!(status.is_success(), "GET {url} answers {status}");
        Ok(())
    };
    process.wait_until_ready(START_LIMIT, answers).await?;
    Ok(process)
}

impl MonitoringOptions {
    fn launch_prometheus(&self) -> Result<Launch> {
        let program = installed("prometheus").context("prometheus is not installed")?;
        let launch = Launch::new("prometheus", program, &self.folder)
            .arg(format!("--config.file={}", self.folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", self.folder.join("data").display()))
            .arg(format!("--web.listen-address={}", loopback(self.prometheus)))
            .args(["--storage.tsdb.retention.time=1d", "--log.level=warn"]);
        Ok(launch.lifetime(self.lifetime))
    }

    /// The exporter has no fixed server: each scrape names its target.
    fn launch_exporter(&self) -> Result<Launch> {
        let name = "prometheus-redis-exporter";
        let program = installed(name).with_context(|| format!("{name} is not installed"))?;
        let launch = Launch::new("redis-exporter", program, &self.folder)
            .arg(format!("-web.listen-address={}", loopback(self.exporter)))
            .arg("-redis.addr=");
        Ok(launch.lifetime(self.lifetime))
    }

    fn copy_configuration(&self) -> Result<()> {
        fs::create_dir_all(self.folder.join("targets"))?;
        let deployed = workspace_root().join("dashboards/prometheus");
        for file in ["prometheus.yml", "recording.yml", "alerts.yml"] {
            let from = deployed.join(file);
            fs::copy(&from, self.folder.join(file))
                .with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }

    fn write_targets(&self, targets: &Targets) -> Result<()> {
        let all = |addrs: &[SocketAddr]| json!([{ "targets": addrs }]);
        let redis: Vec<String> = targets.redis.iter().map(|addr| format!("redis://{addr}")).collect();
        let exporter = json!({ "__exporter__": loopback(self.exporter) });
        self.write_target_file("nodes", &all(&targets.nodes))?;
        self.write_target_file("coordinators", &all(&targets.coordinators))?;
        self.write_target_file("ledgers", &all(&targets.ledgers))?;
        self.write_target_file("redis", &json!([{ "targets": redis, "labels": exporter }]))?;
        self.write_target_file("prometheus", &all(&[loopback(self.prometheus)]))
    }

    /// Replaces the file atomically, because Prometheus may be reading it.
    fn write_target_file(&self, job: &str, targets: &Value) -> Result<()> {
        let folder = self.folder.join("targets");
        let unfinished = folder.join(format!("{job}.unfinished"));
        fs::write(&unfinished, targets.to_string())?;
        Ok(fs::rename(unfinished, folder.join(format!("{job}.json")))?)
    }
}
