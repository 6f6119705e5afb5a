//! The process: its settings, its start without a cluster, its end.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use testkit::ports::{PortBlock, loopback};
use testkit::{Folder, Launch, Process, RedisServer};

use crate::fixture::{TestNode, shared_redis};

const NODE: &str = env!("CARGO_BIN_EXE_flashsale-node");
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Runs a node with only these variables, until it exits.
fn run(variables: &[(&str, &str)]) -> Output {
    Command::new(NODE).env_clear().envs(variables.iter().copied()).output().unwrap()
}

/// Returns the single line that a node prints for invalid settings.
#[track_caller]
fn refusal(variables: &[(&str, &str)]) -> String {
    let output = run(variables);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(64), 1), "{line}");
    line.trim_end().to_owned()
}

const SECRET: &str = "a secret of thirty-two characters";
const REDIS: (&str, &str) = ("REDIS_URL", "redis://127.0.0.1:1");
const NO_AUTH: (&str, &str) = ("AUTH", "none");

#[test]
fn invalid_setting_is_reported_in_one_line() {
    let duration = "must be a number with a unit (ms, s, m, h, d), like 250ms, 2s or 1h 30m";
    // Without a reason, another library writes it.
    for (variable, value, reason) in [
        ("PORT", "70000", "70000 is not in 0..=65535"),
        ("DURABILITY", "maybe", "must be one of replica, none"),
        ("PURCHASE_TIMEOUT", "2", duration),
        ("PURCHASE_TIMEOUT", "0s", "must be longer than 0"),
        ("SALE_ID", "Flash!", "must not contain anything but a-z, 0-9 and '-'"),
        ("LANE_QUEUE_MAX", "0", ""),
        ("HOST", "here", ""),
    ] {
        let line = refusal(&[REDIS, (variable, value)]);
        let flag = variable.to_lowercase().replace('_', "-");
        let stated = line.strip_prefix(&format!("error: {variable} (--{flag}) cannot be {value:?}: "));
        assert!(stated.is_some_and(|stated| reason.is_empty() || stated == reason), "{line}");
    }
    let line = refusal(&[REDIS, NO_AUTH, ("RUST_LOG", "node=loud")]);
    assert!(line.starts_with("error: RUST_LOG cannot be \"node=loud\": "), "{line}");
}

#[test]
fn invalid_redis_url_is_reported_without_password() {
    assert_eq!(refusal(&[NO_AUTH]), "error: REDIS_URL (--redis-url) must be set");
    let line = refusal(&[("REDIS_URL", "redis://host:7000,http://ann:secret@host")]);
    let expected = "error: REDIS_URL (--redis-url): \"http://***@host\" is not of the form redis://";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn empty_variable_counts_as_unset() {
    assert_eq!(refusal(&[NO_AUTH, ("REDIS_URL", "")]), "error: REDIS_URL (--redis-url) must be set");
    assert!(refusal(&[REDIS, ("PORT", ""), ("LANE_LINGER", "x")]).contains("LANE_LINGER"));
}

#[test]
fn node_without_auth_names_its_values() {
    let missing = "AUTH (--auth) must be set to one of jwt, header, none";
    assert_eq!(refusal(&[REDIS]), format!("error: {missing}"));
    assert_eq!(refusal(&[REDIS, ("AUTH", "")]), format!("error: {missing}"));
    assert_eq!(refusal(&[]), format!("error: REDIS_URL (--redis-url) must be set; {missing}"));
    let line = refusal(&[REDIS, ("AUTH", "off")]);
    assert_eq!(line, r#"error: AUTH (--auth) cannot be "off": must be one of jwt, header, none"#);
}

#[test]
fn help_lists_variables_and_hides_passwords() {
    let output = Command::new(NODE).arg("--help").env("REDIS_URL", "redis://:hunter2@host").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for variable in
        ["HOST", "PORT", "OPS_PORT", "SALE_ID", "REDIS_URL", "DURABILITY", "DRAIN_TIMEOUT", "LOG_FORMAT"]
    {
        assert!(help.contains(&format!("[env: {variable}")), "{variable} is missing in {help}");
    }
    assert!(!help.contains("hunter2"));
}

#[test]
fn port_in_use_is_reported_with_its_setting() {
    let taken = TcpListener::bind(loopback(0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&[REDIS, NO_AUTH, ("HOST", "127.0.0.1"), ("OPS_PORT", &port)]);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line, format!("error: OPS_PORT: cannot listen on 127.0.0.1:{port}: address in use\n"));
    assert_eq!(output.status.code(), Some(1));
}

/// A running node and its ports.
pub(crate) struct RunningNode {
    pub(crate) process: Process,
    ports: PortBlock,
    _folder: Folder,
}

impl RunningNode {
    fn start(redis_url: &str) -> Self {
        Self::with_env(redis_url, &[])
    }

    /// Starts a node with further variables.
    pub(crate) fn with_env(redis_url: &str, variables: &[(&str, &str)]) -> Self {
        let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());
        let launch = Launch::new("node", NODE, folder.path())
            .env("HOST", "127.0.0.1")
            .env("PORT", ports.first())
            .env("OPS_PORT", ports.first() + 1)
            .env("REDIS_URL", redis_url)
            .env("AUTH", "none");
        let launch = variables.iter().fold(launch, |launch, (name, value)| launch.env(*name, value));
        let process = launch.spawn().unwrap();
        Self { process, ports, _folder: folder }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", loopback(self.ports.first()))
    }

    fn ops_url(&self, path: &str) -> String {
        format!("http://{}{path}", loopback(self.ports.first() + 1))
    }

    /// Returns the status of an endpoint on the operations port, or 0 when the connection is refused.
    async fn probe(&self, path: &str) -> u16 {
        reqwest::get(self.ops_url(path)).await.map_or(0, |answer| answer.status().as_u16())
    }

    pub(crate) async fn metrics(&self) -> reqwest::Result<String> {
        reqwest::get(self.ops_url("/metrics")).await?.text().await
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap()
    }

    pub(crate) async fn wait_for_status(&self, path: &str, status: u16) {
        let what = format!("GET {path} answers {status}");
        testkit::until(&what, LIMIT, async || self.probe(path).await == status).await.unwrap();
    }
}

#[tokio::test]
async fn node_waits_for_an_unreachable_cluster() {
    let unused_ports = PortBlock::take().unwrap();
    let node = RunningNode::start(&format!("redis://ann:secret@{}", loopback(unused_ports.first())));

    node.wait_for_status("/healthz", 200).await;
    let ready = reqwest::get(node.ops_url("/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.text().await.unwrap(), "waiting for the Redis Cluster\n");
    assert!(reqwest::get(node.url("/api/status")).await.is_err(), "the port for buyers is open too early");

    let warned = async || node.log().contains("waiting for the Redis Cluster");
    testkit::until("a warning in the log", LIMIT, warned).await.unwrap();
    assert!(node.process.stop(LIMIT).await.unwrap().success());
    let log = node.log();
    assert_eq!(log.matches("\"level\":\"WARN\"").count(), 1, "each reason is logged once: {log}");
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn stopping_node_is_unready_before_it_closes() {
    let node = RunningNode::start(&shared_redis().await.seeds());
    node.wait_for_status("/readyz", 200).await;
    assert_eq!(reqwest::get(node.url("/nowhere")).await.unwrap().status(), 404);

    node.process.term();

    node.wait_for_status("/readyz", 503).await;
    let answer = reqwest::get(node.url("/nowhere")).await.unwrap();
    assert_eq!(answer.status(), 404, "still serves until load balancers notice");
    assert_eq!(answer.headers()["connection"], "close", "and asks clients to close their connections");
    assert!(node.process.wait(LIMIT).await.unwrap().success());
}

#[tokio::test]
async fn purchases_are_counted_by_outcome_from_zero() {
    // Given a sale of one unit and a node that has just found it.
    let test_node = TestNode::selling(1).await;
    let sale = test_node.sale.as_str();
    let node = RunningNode::start(&shared_redis().await.seeds());
    let wait_for_count = async |outcome: &str, count: u32| {
        let line = format!("flashsale_purchases_total{{sale=\"{sale}\",outcome=\"{outcome}\"}} {count}\n");
        let shown = async || node.metrics().await.is_ok_and(|metrics| metrics.contains(&line));
        testkit::until(&line, LIMIT, shown).await.unwrap();
    };
    for outcome in ["purchased", "already_purchased", "out_of_stock", "not_active", "busy", "unknown"] {
        wait_for_count(outcome, 0).await;
    }

    // When one buyer buys twice and another one comes too late.
    node.wait_for_status("/readyz", 200).await;
    for user in ["ann", "ann", "bob"] {
        let url = node.url(&format!("/api/sales/{sale}/purchase"));
        reqwest::Client::new().post(url).json(&serde_json::json!({ "userId": user })).send().await.unwrap();
    }

    // Then each purchase is counted once, by its outcome.
    wait_for_count("purchased", 1).await;
    wait_for_count("already_purchased", 1).await;
    let metrics = node.metrics().await.unwrap();
    assert!(
        metrics.contains("# HELP flashsale_purchases_total Answers to purchases, by outcome"),
        "{metrics}"
    );
}

#[tokio::test]
async fn node_refuses_a_redis_without_cluster_mode() {
    let redis = RedisServer::start().await.unwrap();
    let node = RunningNode::start(&redis.url());

    let status = node.process.wait(LIMIT).await.unwrap();

    assert_eq!(status.code(), Some(64));
    assert!(node.process.log_tail().contains("is not a Redis Cluster node"), "{}", node.process.log_tail());
}

#[tokio::test]
async fn node_without_authentication_warns_and_shows_it() {
    let node = RunningNode::start(&shared_redis().await.seeds());
    node.wait_for_status("/readyz", 200).await;

    let warned = async || node.log().contains("AUTH=none: each client can buy");
    testkit::until("a warning in the log", LIMIT, warned).await.unwrap();
    let metrics = node.metrics().await.unwrap();
    assert!(metrics.contains("flashsale_auth_info{auth=\"none\"} 1\n"), "{metrics}");
}

#[test]
fn node_trusts_a_header_only_from_named_proxies() {
    let refused = |variables: &[_]| refusal(&[&[REDIS, ("AUTH", "header")], variables].concat());
    let needed =
        "AUTH=header needs TRUSTED_PROXIES, the networks of the proxies that set x-authenticated-user";
    assert_eq!(refused(&[]), format!("error: {needed}"));
    for everyone in ["0.0.0.0/0", "10.0.0.0/8,::/0"] {
        let line = refused(&[("TRUSTED_PROXIES", everyone)]);
        assert!(line.contains("TRUSTED_PROXIES must not be every address"), "{line}");
    }
    let proxies = ("TRUSTED_PROXIES", "10.0.0.0/8");
    let line = refused(&[proxies, ("JWT_SECRET", SECRET)]);
    assert!(line.contains("JWT_SECRET is set, but AUTH is not jwt"), "{line}");
    let line = refused(&[proxies, ("AUTH_HEADER", "X User")]);
    assert!(line.starts_with("error: AUTH_HEADER (--auth-header) cannot be \"X User\": "), "{line}");
}

#[test]
fn node_does_not_start_with_invalid_keys() {
    let refused = |variables: &[_]| refusal(&[&[REDIS, ("AUTH", "jwt")], variables].concat());
    let audience_and_issuer = [("JWT_AUDIENCE", "shop"), ("JWT_ISSUER", "https://issuer.example")];
    for (variables, line) in [
        (
            &audience_and_issuer[..],
            "AUTH=jwt needs JWT_SECRET, JWT_SECRET_FILE, JWT_PUBLIC_KEY_FILE or JWT_JWKS_FILE",
        ),
        (&[("JWT_SECRET", "short")], "JWT_SECRET (--jwt-secret): must be at least 32 characters long"),
        (&[("JWT_SECRET", SECRET)], "AUTH=jwt needs JWT_AUDIENCE"),
    ] {
        assert_eq!(refused(variables), format!("error: {line}"));
    }
    let folder = Folder::temporary().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "not a key").unwrap();
    let file = file.to_str().unwrap();
    let line = refused(&[&audience_and_issuer[..], &[("JWT_SECRET_FILE", file)]].concat());
    assert_eq!(line, format!("error: JWT_SECRET_FILE: {file} must be at least 32 characters long"));
    let weak = testkit::workspace_root().join("node/tests/edge/keys/rsa-1024.pub.pem");
    let line =
        refused(&[&audience_and_issuer[..], &[("JWT_PUBLIC_KEY_FILE", weak.to_str().unwrap())]].concat());
    assert!(line.ends_with("is an RSA key of 1024 bits; it must have 2048 to 4096"), "{line}");
    for setting in ["JWT_PUBLIC_KEY_FILE", "JWT_JWKS_FILE"] {
        let line = refused(&[&audience_and_issuer[..], &[(setting, file)]].concat());
        assert!(line.starts_with(&format!("error: {setting}: {file} is not ")), "{line}");
        let line = refused(&[&audience_and_issuer[..], &[(setting, "/nowhere")]].concat());
        assert!(line.starts_with(&format!("error: {setting} cannot be read: /nowhere: ")), "{line}");
    }
    for (variable, value, reason) in [
        ("JWT_SECRET", SECRET, "JWT_SECRET is set, but AUTH is not jwt: tokens would not be checked"),
        ("TRUSTED_PROXIES", "proxy", "must be a network like 10.0.0.0/8"),
        ("CORS_ORIGIN", "shop.example", "must be an origin like https://shop.example"),
    ] {
        let line = refusal(&[REDIS, NO_AUTH, (variable, value)]);
        assert!(line.contains(reason), "{line}");
    }
}
