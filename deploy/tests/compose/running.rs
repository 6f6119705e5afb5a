//! The services of Compose, started in its order. Services that consist only of a third-party image are left out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::ports::loopback;
use testkit::postgres::PostgresOptions;
use testkit::rabbitmq::RabbitMqOptions;
use testkit::{Folder, Launch, Lifetime, Postgres, Process, RabbitMq, until};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::configuration::fill_in_nginx;
use crate::fixture::ComposeFixture;

/// Time for anything that takes a second or two on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn compose_services_start_a_sale() -> Result<()> {
    // The `.env` file of a shop that uses both sinks.
    let endpoint = TcpListener::bind(loopback(0)).await?;
    let fixture = ComposeFixture::with(&BTreeMap::from([
        ("AMQP_URL", "amqp://ledger@rabbitmq:5672".to_owned()),
        ("AMQP_QUEUE", "shop".to_owned()),
        ("WEBHOOK_URL", format!("http://{}/orders", endpoint.local_addr()?)),
    ]))?;

    // Secrets are created once. A second run changes none.
    succeeds(&fixture.launch("secrets")?).await?;
    let secrets = secrets_of(&fixture)?;
    succeeds(&fixture.launch("secrets")?).await?;
    assert_eq!(secrets_of(&fixture)?, secrets);
    assert_servers_have_no_password_of_a_client(&fixture, &secrets)?;

    // The servers, and the job that forms a cluster of them. Debian's programs replace those of the image.
    let _servers = start(&fixture, "redis-", |fixture, server, launch| {
        Ok(launch
            .env("SERVER", "redis-server")
            .env("PORT", fixture.port(server, 6379))
            .args(["--cluster-port", &fixture.port(server, 16379).to_string()])
            .env("RUN_FOLDER", fixture.localize(server, "/run/flashsale")?)
            .env("DATA_FOLDER", fixture.localize(server, "/data")?))
    })?;
    succeeds(&fixture.launch("cluster")?).await?;

    // The project's programs. Their ports differ, because all of them share one machine, and the sale starts at once.
    let _coordinators = start(&fixture, "coordinator-", |fixture, name, launch| {
        Ok(on_ports(fixture, name, launch)?.env("SALE_START_TIME", "now"))
    })?;
    let _nodes = start(&fixture, "node-", on_ports)?;
    for name in fixture.services("coordinator-").into_iter().chain(fixture.services("node-")) {
        let healthcheck = on_ports(&fixture, name, fixture.healthcheck(name)?)?;
        until(&format!("health of {name}"), START_LIMIT, async || succeeds(&healthcheck).await.is_ok())
            .await?;
        let port = if name.starts_with("node-") { 9001 } else { 3100 };
        wait_for_answer(&fixture.url(name, port, "/readyz")).await?;
    }

    // The ledger, with a database that its user owns, as the image creates it.
    let database = Folder::temporary()?;
    let postgres = Postgres::start(PostgresOptions {
        port: fixture.port("postgres", 5432),
        folder: database.subfolder("postgres")?,
        lifetime: Lifetime::Attached,
    })
    .await?;
    postgres.sql("CREATE ROLE ledger LOGIN")?;
    postgres.sql("ALTER DATABASE orders OWNER TO ledger")?;
    let broker = start_rabbitmq(&fixture).await?;
    let _ledger = on_ports(&fixture, "ledger-1", fixture.launch("ledger-1")?)?.spawn()?;
    let healthcheck = on_ports(&fixture, "ledger-1", fixture.healthcheck("ledger-1")?)?;
    until("health of the ledger", START_LIMIT, async || succeeds(&healthcheck).await.is_ok()).await?;
    wait_for_answer(&fixture.url("ledger-1", 3200, "/readyz")).await?;

    // nginx, with its template filled in as the image does it.
    let configuration = fill_in_nginx(&fixture)?;
    ensure!(
        Path::new(&fixture.localize("nginx", "/tmp/nginx.conf")?) == configuration,
        "nginx would read another file"
    );
    let _nginx = fixture.launch("nginx")?.terminate_on_parent_death().spawn()?;
    let status = fixture.url("nginx", 8080, "/api/status");
    wait_for_answer(&status).await?;
    let status: Value = reqwest::get(&status).await?.json().await?;
    assert_eq!(status["stock"].as_u64(), Some(10_000), "{status}");

    // A purchase reaches both sinks of the feed.
    let bought = fixture.url("nginx", 8080, "/api/sale/purchase");
    let bought = reqwest::Client::new().post(bought).json(&json!({"userId": "ada"})).send().await?;
    assert_eq!(bought.status(), 200, "{}", bought.text().await?);
    let delivered = timeout(START_LIMIT, first_delivery(&endpoint)).await??;
    assert!(delivered.contains("\r\nwebhook-signature: v1,"), "{delivered}");
    let queued =
        async || broker.control(&["list_queues", "name", "messages"]).is_ok_and(|it| it.contains("shop\t1"));
    until("the order in the queue", START_LIMIT, queued).await?;

    // The exporter reads Redis as a user with no further rights.
    let exporter =
        fixture.command("redis-exporter", "exporter", &["prometheus-redis-exporter".to_owned()])?;
    let listen = loopback(fixture.port("redis-exporter", 9121));
    let _exporter = exporter.env("REDIS_EXPORTER_WEB_LISTEN_ADDRESS", listen).spawn()?;
    for server in fixture.services("redis-") {
        let target = format!("/scrape?target=redis://{}", loopback(fixture.port(server, 6379)));
        let scraped = fixture.url("redis-exporter", 9121, &target);
        wait_for_answer(&scraped).await?;
        let metrics = reqwest::get(&scraped).await?.text().await?;
        assert!(metrics.contains("\nredis_up 1\n"), "{server} is not up:\n{metrics}");
    }
    Ok(())
}

/// Starts the service with its configuration file. Its first user has the password that the ledger has.
async fn start_rabbitmq(fixture: &ComposeFixture) -> Result<RabbitMq> {
    let folder = Folder::temporary()?.subfolder("rabbitmq")?;
    fs::create_dir_all(folder.join("data"))?;
    let configuration = &fixture.environment("rabbitmq")?["RABBITMQ_CONFIG_FILE"];
    fs::copy(configuration, folder.join("data/rabbitmq.conf"))?;
    let (port, lifetime) = (fixture.port("rabbitmq", 5672), Lifetime::Attached);
    RabbitMq::start(RabbitMqOptions { port, folder, lifetime }).await
}

/// Answers the first delivery to a webhook, and returns its head.
async fn first_delivery(endpoint: &TcpListener) -> Result<String> {
    let (mut stream, _) = endpoint.accept().await?;
    let mut head = String::new();
    let mut reader = BufReader::new(&mut stream);
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head).await? > 0, "the connection was closed");
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    Ok(head)
}

fn start(
    fixture: &ComposeFixture,
    prefix: &str,
    adapt: impl Fn(&ComposeFixture, &str, Launch) -> Result<Launch>,
) -> Result<Vec<Process>> {
    let services = fixture.services(prefix);
    ensure!(services.len() > 1, "too few services {prefix}…");
    services.into_iter().map(|service| adapt(fixture, service, fixture.launch(service)?)?.spawn()).collect()
}

fn on_ports(fixture: &ComposeFixture, name: &str, launch: Launch) -> Result<Launch> {
    Ok(if name.starts_with("node-") {
        launch.env("PORT", fixture.port(name, 3001)).env("OPS_PORT", fixture.port(name, 9001))
    } else {
        launch.env("PORT", fixture.port(name, if name.starts_with("ledger-") { 3200 } else { 3100 }))
    })
}

async fn succeeds(launch: &Launch) -> Result<()> {
    let process = launch.spawn()?;
    let status = process.wait(START_LIMIT).await?;
    ensure!(status.success(), "{} exited with {status}{}", process.name(), process.log_tail());
    Ok(())
}

async fn wait_for_answer(url: &str) -> Result<()> {
    until(url, START_LIMIT, async || reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success()))
        .await
}

/// Returns all secrets by path. Each belongs to one reader, is long, and is readable by the user of that reader.
fn secrets_of(fixture: &ComposeFixture) -> Result<Vec<(String, String)>> {
    let (_, folder) = fixture.folders("secrets")?.pop().context("no folder for secrets")?;
    let mut secrets = Vec::new();
    for reader in
        ["cluster", "coordinator", "exporter", "grafana", "ledger", "node", "postgres", "rabbitmq", "redis"]
    {
        for file in fs::read_dir(folder.join(reader))? {
            let path = file?.path();
            let secret = fs::read_to_string(&path)?;
            ensure!(secret.len() >= 48, "{} is short", path.display());
            let mode = path.metadata()?.permissions().mode();
            ensure!(mode & 0o777 == 0o644, "{} cannot be read", path.display());
            secrets.push((path.strip_prefix(&folder)?.display().to_string(), secret));
        }
    }
    secrets.sort();
    ensure!(secrets.len() == 20, "{} secrets", secrets.len());
    Ok(secrets)
}

/// A server verifies the passwords of clients by their hashes. It knows only the password that it presents itself.
fn assert_servers_have_no_password_of_a_client(
    fixture: &ComposeFixture,
    secrets: &[(String, String)],
) -> Result<()> {
    let is_of_client =
        |path: &str| ["cluster/", "coordinator/", "ledger/", "node/"].iter().any(|it| path.starts_with(it));
    for server in fixture.services("redis-") {
        for (inside, folder) in fixture.folders(server)? {
            if inside != Path::new("/secrets") {
                continue;
            }
            for file in fs::read_dir(folder)? {
                let path = file?.path();
                let mounted = fs::read_to_string(&path)?;
                for (client, password) in secrets.iter().filter(|(client, _)| is_of_client(client)) {
                    ensure!(!mounted.contains(password), "{} of {server} has {client}", path.display());
                }
            }
        }
    }
    Ok(())
}
