//! The load balancer in front of the nodes, with the deployed configuration. Only its placeholders are filled in.

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

/// Address, upstream nodes and files of nginx.
#[derive(Clone, Debug)]
pub struct NginxOptions {
    /// The public port.
    pub port: u16,
    /// Number of worker processes, or `auto`.
    pub workers: &'static str,
    /// The nodes' public addresses.
    pub nodes: Vec<SocketAddr>,
    /// Networks of balancers in front of nginx, whose `X-Forwarded-For` and `X-Forwarded-Proto` it trusts.
    pub balancers: Vec<String>,
    /// The folder for its configuration, log and temporary files.
    pub folder: PathBuf,
    /// Defines if nginx may outlive its owner.
    pub lifetime: Lifetime,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Mutex<Arc<Process>>,
    options: NginxOptions,
}

impl Nginx {
    /// Starts nginx and waits until it accepts connections.
    ///
    /// # Errors
    /// Fails when nginx is not installed, rejects its configuration, or cannot bind its port.
    pub async fn start(options: NginxOptions) -> Result<Self> {
        options.write_configuration()?;
        let process = options.spawn().await?;
        Ok(Self { process: Mutex::new(process), options })
    }

    /// Stops nginx if it runs, starts it again with the same configuration, and waits until it accepts connections.
    ///
    /// # Errors
    /// Fails when nginx does not start.
    pub async fn restart(&self) -> Result<()> {
        self.process().kill();
        *self.lock() = self.options.spawn().await?;
        Ok(())
    }

    /// Routes requests to `nodes` and waits until no worker accepts connections for the previous ones. Requests in
    /// flight end at their node. An idle connection to an old worker is closed: a client that sends on it at that
    /// moment gets no answer and must retry.
    ///
    /// # Errors
    /// Fails when the configuration cannot be written, or nginx does not load it.
    pub async fn serve(&self, nodes: Vec<SocketAddr>) -> Result<()> {
        let (port, process) = (self.options.port, self.process());
        let mut workers = procfs::listeners(port);
        workers.retain(|&pid| pid != process.pid());
        NginxOptions { nodes, ..self.options.clone() }.write_configuration()?;
        process.reload();
        let replaced = async || procfs::listeners(port).iter().all(|pid| !workers.contains(pid));
        until("the new nginx configuration", START_LIMIT, replaced).await.with_context(|| process.log_tail())
    }

    /// The master process. A restart replaces it.
    pub fn process(&self) -> Arc<Process> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NginxOptions {
    /// Checks the configuration with nginx itself (`nginx -t`).
    ///
    /// # Errors
    /// Fails with nginx's own message, also for warnings.
    pub async fn check(&self) -> Result<()> {
        self.write_configuration()?;
        let process = self.launch()?.arg("-t").spawn()?;
        let status = process.wait(START_LIMIT).await?;
        let log_tail = process.log_tail();
        ensure!(
            status.success() && !log_tail.contains("[warn]"),
            "nginx rejects its configuration{log_tail}"
        );
        Ok(())
    }

    async fn spawn(&self) -> Result<Arc<Process>> {
        let process = self.launch()?.spawn()?;
        let accepts = async || Ok(TcpStream::connect(loopback(self.port)).await.map(drop)?);
        process.wait_until_ready(START_LIMIT, accepts).await?;
        Ok(Arc::new(process))
    }

    /// Workers are children of the master. The master gets SIGTERM, so that it ends them too.
    fn launch(&self) -> Result<Launch> {
        let program = installed("nginx").context("nginx is not installed")?;
        let launch =
            Launch::new("nginx", program, &self.folder).args(["-e", "stderr", "-p"]).arg(&self.folder);
        Ok(launch.arg("-c").arg(self.configuration()).lifetime(self.lifetime).terminate_on_parent_death())
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
        let balancers: Vec<String> =
            self.balancers.iter().map(|network| format!("    set_real_ip_from {network};")).collect();
        template
            .replace("${NGINX_REAL_IP_FROM}", &balancers.join("\n"))
            .replace("${NGINX_WORKERS}", self.workers)
            .replace("${NGINX_FOLDER}", &self.folder.to_string_lossy())
            .replace("${NGINX_LISTEN}", &loopback(self.port).to_string())
            .replace("${NGINX_UPSTREAM_SERVERS}", &servers.join("\n"))
    }
}
