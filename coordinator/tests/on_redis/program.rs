//! The program: settings, exit codes, readiness and shutdown.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;
use testkit::ports::PortBlock;
use testkit::{Folder, Launch, Process, RedisServer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixture::{SOON, shared_redis};

const TOKEN: &str = "0123456789abcdef";

/// A folder for the log and a port for one coordinator.
struct Instance {
    folder: Folder,
    ports: PortBlock,
}

impl Instance {
    fn new() -> Self {
        Self { folder: Folder::temporary().unwrap(), ports: PortBlock::take().unwrap() }
    }

    fn launch(&self, redis_url: &str) -> Launch {
        Launch::new("coordinator", env!("CARGO_BIN_EXE_flashsale-coordinator"), self.folder.path())
            .env("PORT", self.ports.first())
            .env("REDIS_URL", redis_url)
            .env("ADMIN_TOKEN", TOKEN)
    }

    async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.ports.first());
        let response = Client::new().get(url).bearer_auth(TOKEN).send().await.ok()?;
        Some((response.status(), response.text().await.ok()?))
    }

    async fn wait_for(&self, path: &str, status: StatusCode) {
        let answers = || async { self.get(path).await.is_some_and(|(answered, _)| answered == status) };
        testkit::until(path, SOON, answers).await.unwrap();
    }
}

/// Waits until the program exits, and returns its exit code and log.
async fn ends(process: Process) -> (Option<i32>, String) {
    let code = process.wait(SOON).await.unwrap().code();
    (code, std::fs::read_to_string(process.log()).unwrap())
}

fn with_sale(launch: Launch, id: &str, stock: u32) -> Launch {
    let launch = launch.env("SALE_ID", id).env("TOTAL_STOCK", stock);
    launch.env("SALE_START_TIME", "-1m").env("SALE_END_TIME", "1h")
}

#[tokio::test]
async fn invalid_settings_exit_with_64_and_one_line() {
    let instance = Instance::new();
    let good = || instance.launch("redis://127.0.0.1:1");
    let bad = [
        (good().env("ADMIN_TOKEN", "short"), "ADMIN_TOKEN"),
        (good().env("ADMIN_TOKEN", ""), "ADMIN_TOKEN"),
        (good().env("PORT", "http"), "PORT"),
        (good().env("REDIS_URL", "localhost"), "REDIS_URL"),
        (good().env("LEASE_DURATION", "100ms"), "LEASE_DURATION"),
        (good().env("TOTAL_STOCK", "10"), "SALE_START_TIME"),
        (with_sale(good(), "flash", 0), "TOTAL_STOCK"),
        (with_sale(good(), "flash", 1).env("SALE_END_TIME", "-2m"), "SALE_END_TIME"),
        (with_sale(good(), "flash", 1).env("PRODUCT_PRICE", "-1"), "PRODUCT_PRICE"),
    ];
    for (launch, variable) in bad {
        std::fs::remove_file(instance.folder.path().join("coordinator.log")).ok();
        let (code, log) = ends(launch.spawn().unwrap()).await;
        assert_eq!(code, Some(64), "{log}");
        assert!(log.lines().count() == 1 && log.contains(variable), "{log}");
        assert!(!log.contains("short"), "a token is in the log: {log}");
    }
}

#[tokio::test]
async fn help_lists_the_settings() {
    let instance = Instance::new();
    let (code, help) = ends(instance.launch("redis://127.0.0.1:1").arg("--help").spawn().unwrap()).await;
    assert_eq!(code, Some(0));
    let sale = ["TOTAL_STOCK", "SALE_START_TIME", "SHARDS"];
    let rounds = ["SNAPSHOT_PERIOD", "REBALANCE_PERIOD", "LEASE_DURATION"];
    for variable in ["PORT", "REDIS_URL", "ADMIN_TOKEN"].into_iter().chain(sale).chain(rounds) {
        assert!(help.contains(&format!("[env: {variable}")), "{variable} is not in\n{help}");
    }
    assert!(!help.contains(TOKEN));
}

#[tokio::test]
async fn default_sale_is_created_once_before_clean_shutdown() {
    let (redis, instance) = (shared_redis().await, Instance::new());
    for _ in 0..2 {
        let process = with_sale(instance.launch(&redis.seeds()), "by-settings", 50).spawn().unwrap();
        instance.wait_for("/readyz", StatusCode::OK).await;
        let (_, audit) = instance.get("/admin/sales/by-settings/audit").await.unwrap();
        let audit: Value = serde_json::from_str(&audit).unwrap();
        assert_eq!((audit["ok"].as_bool(), audit["total"].as_u64()), (Some(true), Some(50)), "{audit}");
        assert_eq!(process.stop(SOON).await.unwrap().code(), Some(0), "{}", process.log_tail());
    }
    let (code, log) =
        ends(with_sale(instance.launch(&redis.seeds()), "by-settings", 51).spawn().unwrap()).await;
    assert_eq!(code, Some(64));
    assert!(log.lines().last().unwrap().contains("TOTAL_STOCK"), "{log}");
}

#[tokio::test]
async fn open_streams_do_not_delay_shutdown() {
    let (redis, instance) = (shared_redis().await, Instance::new());
    let process = with_sale(instance.launch(&redis.seeds()), "live-by-program", 50).spawn().unwrap();
    instance.wait_for("/readyz", StatusCode::OK).await;
    assert_eq!(instance.get("/").await.unwrap().0, StatusCode::OK);
    let url = format!("http://127.0.0.1:{}/live/sale/events", instance.ports.first());
    let mut stream = Client::new().get(url).send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK, "without a token");

    // Requests in flight would have ten seconds.
    assert_eq!(process.stop(Duration::from_secs(8)).await.unwrap().code(), Some(0), "{}", process.log_tail());

    while let Ok(Some(_last_words)) = stream.chunk().await {}
}

#[tokio::test]
async fn program_waits_for_the_cluster() {
    let instance = Instance::new();
    let process = instance.launch("redis://127.0.0.1:1").spawn().unwrap();
    instance.wait_for("/healthz", StatusCode::OK).await;
    instance.wait_for("/readyz", StatusCode::SERVICE_UNAVAILABLE).await;
    instance.wait_for("/admin/sales", StatusCode::SERVICE_UNAVAILABLE).await;
    let is_logged = || async {
        std::fs::read_to_string(process.log()).unwrap().contains("waiting for the Redis Cluster")
    };
    testkit::until("the log line", SOON, is_logged).await.unwrap();
    assert_eq!(process.stop(Duration::from_secs(5)).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn non_cluster_redis_url_exits_with_64() {
    let (server, instance) = (RedisServer::start().await.unwrap(), Instance::new());
    let (code, log) = ends(instance.launch(&server.url()).spawn().unwrap()).await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.lines().last().unwrap().contains("REDIS_URL"), "{log}");
}

/// Audit lines of the log, as JSON.
fn audit_lines(process: &Process) -> Vec<Value> {
    let log = std::fs::read_to_string(process.log()).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("audit: "))).collect()
}

#[tokio::test]
async fn audit_log_names_operators_and_refusals() {
    let (redis, instance) = (shared_redis().await, Instance::new());
    let tokens = format!("# two operators\nann:operate:{TOKEN}\nbob:read:fedcba9876543210\n");
    let file = instance.folder.path().join("tokens");
    std::fs::write(&file, tokens).unwrap();
    let launch =
        instance.launch(&redis.seeds()).env("ADMIN_TOKEN", "").env("ADMIN_TOKEN_FILE", file.display());
    let process = with_sale(launch.env("LOG_FORMAT", "json"), "audited", 50).spawn().unwrap();
    instance.wait_for("/readyz", StatusCode::OK).await;
    let url = format!("http://127.0.0.1:{}/admin/sales/audited/pause", instance.ports.first());
    let pause = async |token: &str, correlation: &str| {
        let request = Client::new().post(&url).bearer_auth(token).header("x-correlation-id", correlation);
        request.send().await.unwrap().status()
    };

    assert_eq!(pause("guess-guess-guess", "stranger").await, StatusCode::UNAUTHORIZED);
    assert_eq!(pause("fedcba9876543210", "reader").await, StatusCode::FORBIDDEN);
    assert_eq!(pause(TOKEN, "change").await, StatusCode::OK);

    let lines = audit_lines(&process);
    let of = |correlation: &str| {
        let of = lines.iter().filter(|line| line["correlation.id"] == correlation);
        of.map(|line| (&line["message"], &line["operator.name"], &line["client.address"])).collect::<Vec<_>>()
    };
    let (refused, localhost) = ("audit: request to the admin API refused".into(), "127.0.0.1".into());
    let (changed, answered) = ("audit: sale changed".into(), "audit: request of an operator answered".into());
    assert_eq!(of("stranger"), [(&refused, &"".into(), &localhost)]);
    assert_eq!(of("reader"), [(&refused, &"bob".into(), &localhost)]);
    assert_eq!(of("change"), [(&changed, &"ann".into(), &localhost), (&answered, &"ann".into(), &localhost)]);
    let (_, metrics) = instance.get("/metrics").await.unwrap();
    for (reason, count) in [("token_missing", 0), ("token_wrong", 1), ("role", 1)] {
        let line = format!("flashsale_operator_refusals_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line} is not in the metrics");
    }
    let log = std::fs::read_to_string(process.log()).unwrap();
    assert!(!log.contains(TOKEN) && !log.contains("guess-guess"), "a token is in the log: {log}");
}

#[tokio::test]
async fn flood_of_wrong_tokens_stops_no_operator_and_fills_no_log() {
    let (redis, instance) = (shared_redis().await, Instance::new());
    let process =
        with_sale(instance.launch(&redis.seeds()).env("LOG_FORMAT", "json"), "flooded", 50).spawn().unwrap();
    instance.wait_for("/readyz", StatusCode::OK).await;
    let url = format!("http://127.0.0.1:{}/admin/sales/flooded", instance.ports.first());
    let (client, sent) = (Client::new(), std::sync::atomic::AtomicU32::new(0));
    let flood = async || loop {
        _ = client.post(format!("{url}/pause")).bearer_auth("guess-guess-guess").send().await;
        sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let floods = futures::future::join_all((0..64).map(|_| flood()));
    let operator = async {
        for action in ["pause", "resume", "pause", "resume", "pause"] {
            testkit::until("some more refusals", SOON, async || {
                sent.swap(0, std::sync::atomic::Ordering::Relaxed) > 50
            })
            .await
            .unwrap();
            let started = std::time::Instant::now();
            let answer = client.post(format!("{url}/{action}")).bearer_auth(TOKEN).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            println!("{action}: {:?}", started.elapsed());
        }
    };
    tokio::select! {
        _ = floods => unreachable!("it never ends"),
        () = operator => {}
    }
    let refused = |line: &&Value| line["message"] == "audit: request to the admin API refused";
    let lines = audit_lines(&process);
    assert_eq!(lines.iter().filter(refused).count(), 10);
    assert_eq!(lines.iter().rfind(refused).unwrap()["further_refusals_are_only_counted"], true);
}

/// A connection to the coordinator that has sent `sent` and then nothing more.
async fn idle_connection(instance: &Instance, sent: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", instance.ports.first())).await.ok()?;
    stream.write_all(sent.as_bytes()).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn idle_connections_keep_no_operator_out() {
    service::files::raise_open_files_limit();
    let (redis, instance) = (shared_redis().await, Instance::new());
    let process = with_sale(instance.launch(&redis.seeds()), "crowded", 50).spawn().unwrap();
    instance.wait_for("/readyz", StatusCode::OK).await;

    let sent = ["", "POST /admin/sales HTTP/1.1\r\nhost: c", "GET /healthz HTTP/1.1\r\nhost: c\r\n\r\n"];
    let idle = futures::future::join_all((0..1_200).map(|n| idle_connection(&instance, sent[n % 3]))).await;

    assert!(idle.iter().flatten().count() > 1_000, "the limit of connections was reached");
    for path in ["/healthz", "/metrics", "/", "/admin/sales/crowded"] {
        assert_eq!(instance.get(path).await.map(|(status, _)| status), Some(StatusCode::OK), "{path}");
    }
    let url = format!("http://127.0.0.1:{}/admin/sales/crowded/pause", instance.ports.first());
    let paused = Client::new().post(url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(paused.status(), StatusCode::OK, "{}", process.log_tail());
}

#[tokio::test]
async fn operations_port_answers_probes_and_metrics_only() {
    let (redis, instance) = (shared_redis().await, Instance::new());
    let ops_port = instance.ports.first() + 1;
    let launch = instance.launch(&redis.seeds()).env("OPS_PORT", ops_port);
    let process = with_sale(launch, "two-ports", 50).spawn().unwrap();
    instance.wait_for("/readyz", StatusCode::OK).await;
    let status = async |path: &str| {
        let url = format!("http://127.0.0.1:{ops_port}{path}");
        Client::new().get(url).bearer_auth(TOKEN).send().await.unwrap().status()
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(path).await, StatusCode::OK, "{path}");
    }
    for path in ["/", "/admin/sales", "/live/sales"] {
        assert_eq!(status(path).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(process.stop(SOON).await.unwrap().code(), Some(0), "{}", process.log_tail());
}
