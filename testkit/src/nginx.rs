//! The load balancer in front of the nodes, with the configuration that is deployed: only its placeholders are filled in.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use crate::{Launch, Lifetime, Process, binary::installed, ports::loopback, procfs, until, workspace_root};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Where it listens, whom it serves, and where its files are.
#[derive(Clone, Debug)]
pub struct NginxOptions {
    /// The public port.
    pub port: u16,
    /// The nodes' public addresses.
    pub nodes: Vec<SocketAddr>,
    /// A folder for its configuration, log and temporary files.
    pub folder: PathBuf,
    /// Whether it may outlive us.
    pub lifetime: Lifetime,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Mutex<Arc<Process>>,
    options: NginxOptions,
}

impl Nginx {
    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// When it is not installed, does not like its configuration, or cannot have its port.
    pub async fn start(options: NginxOptions) -> Result<Self> {
        options.write_configuration()?;
        let process = options.spawn().await?;
        Ok(Self { process: Mutex::new(process), options })
    }

    /// Ends it if it runs, starts it again as it was, and waits until it accepts connections.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        self.process().kill();
        *self.lock() = self.options.spawn().await?;
        Ok(())
    }

    /// Has requests go to these nodes, and waits until no worker takes connections for those of before; requests in
    /// flight end where they are. An idle connection to such a worker is closed: who sends on it just then gets no
    /// answer and has to try again.
    ///
    /// # Errors
    /// When the configuration cannot be written, or nginx does not take it up.
    pub async fn serve(&self, nodes: Vec<SocketAddr>) -> Result<()> {
        let (port, process) = (self.options.port, self.process());
        let mut workers = procfs::listeners(port);
        workers.retain(|&pid| pid != process.pid());
        NginxOptions { nodes, ..self.options.clone() }.write_configuration()?;
        process.reload();
        let replaced = async || procfs::listeners(port).iter().all(|pid| !workers.contains(pid));
        until("nginx with other nodes", START_LIMIT, replaced).await.with_context(|| process.log_tail())
    }

    /// Its master process; another one after a restart.
    pub fn process(&self) -> Arc<Process> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NginxOptions {
    /// Lets nginx itself check the configuration (`nginx -t`).
    ///
    /// # Errors
    /// With nginx's own words, also for what it would only warn of.
    pub async fn check(&self) -> Result<()> {
        self.write_configuration()?;
        let process = self.launch()?.arg("-t").spawn()?;
        let status = process.wait(START_LIMIT).await?;
        let words = process.log_tail();
        ensure!(
            status.success() && !words.contains("[warn]"),
            "nginx does not like its configuration{words}"
        );
        Ok(())
    }

    async fn spawn(&self) -> Result<Arc<Process>> {
        let process = self.launch()?.spawn()?;
        let accepts = async || Ok(TcpStream::connect(loopback(self.port)).await.map(drop)?);
        process.wait_until_ready(START_LIMIT, accepts).await?;
        Ok(Arc::new(process))
    }

    /// Its workers are its own children: the master is asked to end, so that it takes them along.
    fn launch(&self) -> Result<Launch> {
        let program = installed("nginx").context("nginx is not installed")?;
        let launch =
            Launch::new("nginx", program, &self.folder).args(["-e", "stderr", "-p"]).arg(&self.folder);
        Ok(launch.arg("-c").arg(self.configuration()).lifetime(self.lifetime).terminated_with_us())
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("nginx.conf")
    }

    fn write_configuration(&self) -> Result<()> {
        let template = workspace_root().join("deploy/nginx/nginx.conf");
        let template =
            fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        Ok(fs::write(self.configuration(), self.fill_in(&template))?)
    }

    fn fill_in(&self, template: &str) -> String {
        let first =
            self.nodes.iter().map(|node| format!("        server {node} max_fails=3 fail_timeout=1s;"));
        let again = self.nodes.iter().map(|node| format!("        server {node} max_fails=0 backup;"));
        let servers: Vec<String> = first.chain(again).collect();
        template
            .replace("${NGINX_FOLDER}", &self.folder.to_string_lossy())
            .replace("${NGINX_LISTEN}", &loopback(self.port).to_string())
            .replace("${NGINX_UPSTREAM_SERVERS}", &servers.join("\n"))
    }
}
