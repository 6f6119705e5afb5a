//! What watches a stack: Prometheus, and the exporter that asks Redis for it, with the configuration that is deployed.
//! Only the targets are the stack's own.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Launch, Lifetime, Process, binary::installed, ports::loopback, workspace_root};

/// Prometheus reads what an earlier run left before it is ready: here there is nothing.
const START_LIMIT: Duration = Duration::from_secs(20);
/// It writes what it holds in memory to its disk.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Where Prometheus and the exporter listen, and where their files are.
#[derive(Clone, Debug)]
pub struct MonitoringOptions {
    /// Prometheus' port.
    pub prometheus: u16,
    /// The exporter's port.
    pub exporter: u16,
    /// A folder for configuration, targets, logs and what is measured.
    pub folder: PathBuf,
    /// Whether they may outlive us.
    pub lifetime: Lifetime,
}

/// Whom Prometheus asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The second ports of the nodes.
    pub nodes: Vec<SocketAddr>,
    /// The coordinators.
    pub coordinators: Vec<SocketAddr>,
    /// The Redis servers, replicas too.
    pub redis: Vec<SocketAddr>,
}

/// Both, running.
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
    /// When one is not installed, does not like its configuration, or cannot have its port.
    pub async fn start(options: MonitoringOptions, targets: &Targets) -> Result<Self> {
        options.copy_configuration()?;
        options.write_targets(targets)?;
        let exporter = started(&options.launch_exporter()?, options.exporter, "health").await?;
        let prometheus = started(&options.launch_prometheus()?, options.prometheus, "-/ready").await?;
        Ok(Self { prometheus, exporter, options })
    }

    /// Where Prometheus is.
    pub fn url(&self) -> String {
        format!("http://{}", loopback(self.options.prometheus))
    }

    /// Has Prometheus ask these from now on. It notices by itself.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn watch(&self, targets: &Targets) -> Result<()> {
        self.options.write_targets(targets)
    }

    /// The processes, in the order in which they are to be stopped.
    pub fn processes(&self) -> [Arc<Process>; 2] {
        [self.prometheus.clone(), self.exporter.clone()]
    }

    /// Ends both in good order.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(self) -> Result<()> {
        for process in self.processes() {
            process.stop(STOP_LIMIT).await?;
        }
        Ok(())
    }
}

/// A process that answers at this path.
async fn started(launch: &Launch, port: u16, path: &str) -> Result<Arc<Process>> {
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

    /// It is told with each question whom to ask.
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
        self.write("nodes", &all(&targets.nodes))?;
        self.write("coordinators", &all(&targets.coordinators))?;
        self.write("redis", &json!([{ "targets": redis, "labels": exporter }]))?;
        self.write("prometheus", &all(&[loopback(self.prometheus)]))
    }

    /// All at once: Prometheus may be reading.
    fn write(&self, job: &str, targets: &Value) -> Result<()> {
        let folder = self.folder.join("targets");
        let unfinished = folder.join(format!("{job}.unfinished"));
        fs::write(&unfinished, targets.to_string())?;
        Ok(fs::rename(unfinished, folder.join(format!("{job}.json")))?)
    }
}
