//! The images' `healthcheck` commands, run beside the real programs.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use deploy::dockerfile::image;
use testkit::ports::PortBlock;
use testkit::{Folder, Launch, Process, binary, until};

/// Timeout of the health check in the images.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a process to start, on a machine that builds at the same time.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The processes of a container, run without a container. All of them have its environment.
struct Container {
    target: &'static str,
    folder: Folder,
    ports: PortBlock,
    host: &'static str,
}

impl Container {
    fn of(target: &'static str, host: &'static str) -> Result<Self> {
        Ok(Self { target, folder: Folder::temporary()?, ports: PortBlock::take()?, host })
    }

    /// Starts the program without Redis: it is alive, but not ready.
    fn start(&self) -> Result<Process> {
        let launch = self.launch("program", &image(self.target)?.entrypoint)?;
        launch
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("ADMIN_TOKEN", "0123456789abcdef")
            .env("AUTH", "none")
            .env("DATABASE_URL", "postgresql://shop@127.0.0.1:1/orders")
            .spawn()
    }

    fn healthcheck(&self) -> Result<Launch> {
        self.launch("healthcheck", &image(self.target)?.healthcheck)
    }

    async fn health(&self) -> Result<(Option<i32>, String)> {
        self.outcome(self.healthcheck()?).await
    }

    async fn becomes_healthy(&self) -> Result<()> {
        until("health", START_LIMIT, async || self.health().await.is_ok_and(|(code, _)| code == Some(0)))
            .await
    }

    /// Runs a process to its end. Returns its exit code and output.
    async fn outcome(&self, launch: Launch) -> Result<(Option<i32>, String)> {
        fs::remove_file(self.folder.path().join("healthcheck.log")).ok();
        let process = launch.spawn()?;
        let code = process.wait(START_LIMIT).await?.code();
        Ok((code, fs::read_to_string(process.log())?))
    }

    fn launch(&self, name: &str, command: &[String]) -> Result<Launch> {
        let (program, arguments) = command.split_first().context("a command names a program")?;
        let program = binary(program.trim_start_matches("/usr/local/bin/"))?;
        Ok(Launch::new(name, program, self.folder.path())
            .args(arguments)
            .env("HOST", self.host)
            .env("PORT", self.ports.first())
            .env("OPS_PORT", self.ports.first() + 1))
    }

    /// Returns the address for probes.
    fn probed_address(&self) -> String {
        format!("{}:{}", self.host, self.ports.first() + 1)
    }
}

/// Asserts that the health check failed with one line that contains `reason`.
fn assert_unhealthy((code, output): (Option<i32>, String), reason: &str) {
    assert!(code == Some(1) && output.lines().count() == 1 && output.contains(reason), "{code:?}: {output}");
}

async fn assert_healthy_while_running(target: &'static str) -> Result<()> {
    let container = Container::of(target, "0.0.0.0")?;
    assert_unhealthy(container.health().await?, "Connection refused");

    let program = container.start()?;
    container.becomes_healthy().await?;
    assert_eq!(container.health().await?, (Some(0), String::new()));

    // The kernel still accepts connections for the frozen process.
    program.freeze();
    let since = Instant::now();
    assert_unhealthy(container.health().await?, "does not answer within 2s");
    assert!(since.elapsed() < TIMEOUT, "it took {:?}", since.elapsed());
    program.thaw();
    container.becomes_healthy().await
}

#[tokio::test]
async fn node_is_healthy_while_it_runs() -> Result<()> {
    assert_healthy_while_running("node").await
}

#[tokio::test]
async fn coordinator_is_healthy_while_it_runs() -> Result<()> {
    assert_healthy_while_running("coordinator").await
}

#[tokio::test]
async fn ledger_is_healthy_while_it_runs() -> Result<()> {
    assert_healthy_while_running("ledger").await
}

#[tokio::test]
async fn healthcheck_uses_the_configured_address() -> Result<()> {
    for target in ["node", "coordinator", "ledger"] {
        let container = Container::of(target, "127.0.0.7")?;
        let _program = container.start()?;
        container.becomes_healthy().await?;
        let elsewhere = container.healthcheck()?.env("HOST", "127.0.0.8");
        assert_unhealthy(container.outcome(elsewhere).await?, "127.0.0.8:");
    }
    Ok(())
}

#[tokio::test]
async fn healthcheck_validates_only_its_own_settings() -> Result<()> {
    for target in ["node", "coordinator", "ledger"] {
        let container = Container::of(target, "127.0.0.1")?;
        let (code, output) = container.outcome(container.healthcheck()?.env("PORT", "http")).await?;
        assert!(
            code == Some(64) && output.lines().count() == 1 && output.contains("PORT"),
            "{code:?}: {output}"
        );
        let others = container.healthcheck()?.env("REDIS_URL", "nonsense").env("ADMIN_TOKEN", "short");
        assert_unhealthy(container.outcome(others).await?, &container.probed_address());
    }
    Ok(())
}

#[tokio::test]
async fn help_lists_the_healthcheck() -> Result<()> {
    for target in ["node", "coordinator", "ledger"] {
        let container = Container::of(target, "127.0.0.1")?;
        let help = container.launch("help", &image(target)?.entrypoint)?.arg("--help");
        let (code, help) = container.outcome(help).await?;
        assert!(code == Some(0) && help.contains("\n  healthcheck  Checks "), "{help}");
    }
    Ok(())
}
