//! What Compose would run, in the order in which it would: every service that is not somebody else's image alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::ports::loopback;
use testkit::{Launch, Process, until};

use crate::configuration::fill_in_nginx;
use crate::fixture::ComposeFixture;

/// For whatever takes a second or two, on a machine that builds beside it.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn one_command_leads_to_a_sale() -> Result<()> {
    let here = ComposeFixture::new()?;

    // Secrets first, and a second time changes none.
    ends_well(&here.launch("secrets")?).await?;
    let secrets = secrets_of(&here)?;
    ends_well(&here.launch("secrets")?).await?;
    assert_eq!(secrets_of(&here)?, secrets);

    // Servers, and what makes a cluster of them; Debian's programs instead of the image's.
    let _servers = start(&here, "redis-", |here, server, launch| {
        Ok(launch
            .env("SERVER", "redis-server")
            .env("PORT", here.port(server, 6379))
            .args(["--cluster-port", &here.port(server, 16379).to_string()])
            .env("RUN_FOLDER", here.here(server, "/run/flashsale")?)
            .env("DATA_FOLDER", here.here(server, "/data")?))
    })?;
    ends_well(&here.launch("cluster")?.env("CLI", "redis-cli")).await?;

    // Our programs, which only differ in the ports that one machine has once.
    let _coordinators = start(&here, "coordinator-", on_ports)?;
    let _nodes = start(&here, "node-", on_ports)?;
    for name in here.services("coordinator-").into_iter().chain(here.services("node-")) {
        let healthcheck = on_ports(&here, name, here.healthcheck(name)?)?;
        until(&format!("health of {name}"), SOON, async || ends_well(&healthcheck).await.is_ok()).await?;
        let port = if name.starts_with("node-") { 9001 } else { 3100 };
        answers(&here.url(name, port, "/readyz")).await?;
    }

    // nginx, with the template filled in as its image does it.
    let configuration = fill_in_nginx(&here)?;
    ensure!(
        Path::new(&here.here("nginx", "/tmp/nginx.conf")?) == configuration,
        "it would read another file"
    );
    let _nginx = here.launch("nginx")?.terminated_with_us().spawn()?;
    let status = here.url("nginx", 8080, "/api/status");
    answers(&status).await?;
    let status: Value = reqwest::get(&status).await?.json().await?;
    assert_eq!(status["stock"].as_u64(), Some(10_000), "{status}");

    // What Prometheus is told of Redis is told by a user that may do no more.
    let exporter = here.command("redis-exporter", "exporter", &["prometheus-redis-exporter".to_owned()])?;
    let listen = loopback(here.port("redis-exporter", 9121));
    let _exporter = exporter.env("REDIS_EXPORTER_WEB_LISTEN_ADDRESS", listen).spawn()?;
    for server in here.services("redis-") {
        let target = format!("/scrape?target=redis://{}", loopback(here.port(server, 6379)));
        let scraped = here.url("redis-exporter", 9121, &target);
        answers(&scraped).await?;
        let metrics = reqwest::get(&scraped).await?.text().await?;
        assert!(metrics.contains("\nredis_up 1\n"), "{server} is not up:\n{metrics}");
    }
    Ok(())
}

fn start(
    here: &ComposeFixture,
    prefix: &str,
    adapt: impl Fn(&ComposeFixture, &str, Launch) -> Result<Launch>,
) -> Result<Vec<Process>> {
    let services = here.services(prefix);
    ensure!(services.len() > 1, "there are too few {prefix}…");
    services.into_iter().map(|service| adapt(here, service, here.launch(service)?)?.spawn()).collect()
}

fn on_ports(here: &ComposeFixture, name: &str, launch: Launch) -> Result<Launch> {
    Ok(if name.starts_with("node-") {
        launch.env("PORT", here.port(name, 3001)).env("OPS_PORT", here.port(name, 9001))
    } else {
        launch.env("PORT", here.port(name, 3100))
    })
}

async fn ends_well(launch: &Launch) -> Result<()> {
    let process = launch.spawn()?;
    let status = process.wait(SOON).await?;
    ensure!(status.success(), "{} ended with {status}{}", process.name(), process.log_tail());
    Ok(())
}

async fn answers(url: &str) -> Result<()> {
    until(url, SOON, async || reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success())).await
}

/// All secrets by name. Each is somebody's own, long, and read by whoever mounts its folder, as whom they may run.
fn secrets_of(here: &ComposeFixture) -> Result<Vec<(String, String)>> {
    let (_, folder) = here.folders("secrets")?.pop().context("secrets are written nowhere")?;
    let mut secrets = Vec::new();
    for reader in ["coordinator", "exporter", "grafana", "node", "redis"] {
        for file in fs::read_dir(folder.join(reader))? {
            let path = file?.path();
            let secret = fs::read_to_string(&path)?;
            ensure!(secret.len() >= 48, "{} is short", path.display());
            ensure!(
                path.metadata()?.permissions().mode() & 0o777 == 0o644,
                "{} cannot be read",
                path.display()
            );
            secrets.push((path.strip_prefix(&folder)?.display().to_string(), secret));
        }
    }
    secrets.sort();
    ensure!(secrets.len() == 10, "{} secrets", secrets.len());
    Ok(secrets)
}
