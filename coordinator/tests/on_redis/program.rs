//! The program: settings, exit codes, readiness and shutdown.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;
use testkit::ports::PortBlock;
use testkit::{Folder, Launch, Process, RedisServer};

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
