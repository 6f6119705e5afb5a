//! The process: its settings, its start without a cluster, its end.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use testkit::ports::{PortBlock, loopback};
use testkit::{Folder, Launch, Process};

use crate::fixture::{TestNode, shared_redis};

const NODE: &str = env!("CARGO_BIN_EXE_flashsale-node");
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Runs a node with nothing but these variables, to its end.
fn run(variables: &[(&str, &str)]) -> Output {
    Command::new(NODE).env_clear().envs(variables.iter().copied()).output().unwrap()
}

/// The one line that a node ends with over bad settings.
#[track_caller]
fn refusal(variables: &[(&str, &str)]) -> String {
    let output = run(variables);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(64), 1), "{line}");
    line.trim_end().to_owned()
}

const SECRET: &str = "a secret of thirty-two characters";
const REDIS: (&str, &str) = ("REDIS_URL", "redis://127.0.0.1:1");

#[test]
fn a_bad_setting_is_one_line_that_names_it_and_what_it_may_be() {
    let refused = |variable, value| refusal(&[REDIS, (variable, value)]);
    assert_eq!(
        refused("PORT", "70000"),
        "error: PORT (--port) cannot be \"70000\": 70000 is not in 0..=65535"
    );
    assert_eq!(
        refused("DURABILITY", "maybe"),
        "error: DURABILITY (--durability) cannot be \"maybe\": must be one of replica, none"
    );
    assert_eq!(
        refused("PURCHASE_TIMEOUT", "2"),
        "error: PURCHASE_TIMEOUT (--purchase-timeout) cannot be \"2\": \
         must be a whole number with a unit (ms, s, m, h, d), like 250ms or 2s"
    );
    assert_eq!(
        refused("PURCHASE_TIMEOUT", "0s"),
        "error: PURCHASE_TIMEOUT (--purchase-timeout) cannot be \"0s\": must be longer than 0"
    );
    assert_eq!(
        refused("SALE_ID", "Flash!"),
        "error: SALE_ID (--sale-id) cannot be \"Flash!\": must not contain anything but a-z, 0-9 and '-'"
    );
    assert!(
        refused("LANE_QUEUE_MAX", "0")
            .starts_with("error: LANE_QUEUE_MAX (--lane-queue-max) cannot be \"0\": ")
    );
    assert!(refused("HOST", "here").starts_with("error: HOST (--host) cannot be \"here\": "));
    assert!(refused("RUST_LOG", "node=loud").starts_with("error: RUST_LOG cannot be \"node=loud\": "));
}

#[test]
fn a_redis_url_is_checked_and_its_password_is_not_repeated() {
    assert_eq!(refusal(&[]), "error: REDIS_URL (--redis-url) must be set");
    let line = refusal(&[("REDIS_URL", "redis://host:7000,http://ann:secret@host")]);
    assert!(
        line.starts_with("error: REDIS_URL (--redis-url): \"http://***@host\" is not of the form redis://"),
        "{line}"
    );
}

#[test]
fn a_variable_set_to_nothing_counts_as_not_set() {
    assert_eq!(refusal(&[("REDIS_URL", "")]), "error: REDIS_URL (--redis-url) must be set");
    assert!(refusal(&[REDIS, ("PORT", ""), ("LANE_LINGER", "x")]).contains("LANE_LINGER"));
}

#[test]
fn help_names_every_variable_and_shows_no_password() {
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
fn a_port_that_is_taken_is_named_with_its_setting() {
    let taken = TcpListener::bind(loopback(0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&[REDIS, ("HOST", "127.0.0.1"), ("OPS_PORT", &port)]);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line, format!("error: OPS_PORT: cannot listen on 127.0.0.1:{port}: address in use\n"));
    assert_eq!(output.status.code(), Some(1));
}

/// A running node and where its ports are.
pub(crate) struct Running {
    pub(crate) process: Process,
    ports: PortBlock,
    _folder: Folder,
}

impl Running {
    fn with(redis_url: &str) -> Self {
        Self::set(redis_url, &[])
    }

    /// With further variables.
    pub(crate) fn set(redis_url: &str, variables: &[(&str, &str)]) -> Self {
        let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());
        let launch = Launch::new("node", NODE, folder.path())
            .env("HOST", "127.0.0.1")
            .env("PORT", ports.first())
            .env("OPS_PORT", ports.first() + 1)
            .env("REDIS_URL", redis_url);
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

    /// The status of an operator's request; 0 where nobody listens.
    async fn probe(&self, path: &str) -> u16 {
        reqwest::get(self.ops_url(path)).await.map_or(0, |answer| answer.status().as_u16())
    }

    pub(crate) async fn answers(&self, path: &str, status: u16) {
        let what = format!("GET {path} answers {status}");
        testkit::until(&what, LIMIT, async || self.probe(path).await == status).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_cluster_a_node_lives_and_waits_and_says_why() {
    let nobody = PortBlock::take().unwrap();
    let node = Running::with(&format!("redis://ann:secret@{}", loopback(nobody.first())));

    node.answers("/healthz", 200).await;
    let ready = reqwest::get(node.ops_url("/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.text().await.unwrap(), "waiting for the Redis Cluster\n");
    assert!(
        reqwest::get(node.url("/api/status")).await.is_err(),
        "the port for buyers is closed until there is a sale"
    );

    let warned = async || {
        std::fs::read_to_string(node.process.log()).unwrap().contains("waiting for the Redis Cluster")
    };
    testkit::until("a warning in the log", LIMIT, warned).await.unwrap();
    let status = node.process.stop(LIMIT).await.unwrap();
    assert!(status.success());
    let log = std::fs::read_to_string(node.process.log()).unwrap();
    assert_eq!(log.matches("\"level\":\"WARN\"").count(), 1, "one reason is one line: {log}");
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn a_node_serves_buyers_until_it_is_stopped_and_is_unready_first() {
    let node = Running::with(&shared_redis().await.seeds());
    node.answers("/readyz", 200).await;
    assert_eq!(reqwest::get(node.url("/nowhere")).await.unwrap().status(), 404);

    node.process.term();

    node.answers("/readyz", 503).await;
    let answer = reqwest::get(node.url("/nowhere")).await.unwrap();
    assert_eq!(answer.status(), 404, "still serves while load balancers notice");
    assert_eq!(answer.headers()["connection"], "close", "and tells those who keep connections");
    assert!(node.process.wait(LIMIT).await.unwrap().success());
}

#[tokio::test]
async fn purchases_are_counted_by_outcome_from_zero_on() {
    // Given a sale of one unit and a node that has just learned of it.
    let test_node = TestNode::selling(1).await;
    let sale = test_node.sale.as_str();
    let node = Running::with(&shared_redis().await.seeds());
    let counted = async |outcome: &str, count: u32| {
        let line = format!("flashsale_purchases_total{{sale=\"{sale}\",outcome=\"{outcome}\"}} {count}\n");
        let shown = async || match reqwest::get(node.ops_url("/metrics")).await {
            Ok(answer) => answer.text().await.unwrap().contains(&line),
            Err(_) => false,
        };
        testkit::until(&line, LIMIT, shown).await.unwrap();
    };
    for outcome in ["purchased", "already_purchased", "out_of_stock", "not_active", "busy", "unknown"] {
        counted(outcome, 0).await;
    }

    // When somebody buys twice and another one comes too late.
    node.answers("/readyz", 200).await;
    for user in ["ann", "ann", "bob"] {
        let url = node.url(&format!("/api/sales/{sale}/purchase"));
        reqwest::Client::new().post(url).json(&serde_json::json!({ "userId": user })).send().await.unwrap();
    }

    // Then each is counted once, with what it was told.
    counted("purchased", 1).await;
    counted("already_purchased", 1).await;
    let metrics = reqwest::get(node.ops_url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("# HELP flashsale_purchases_total Answers to purchases, by outcome"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_lone_redis_server_is_no_cluster() {
    let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());
    let port = ports.first().to_string();
    let lone = Launch::new("redis", "redis-server", folder.path())
        .args(["--port", &port, "--save", ""])
        .spawn()
        .unwrap();
    let node = Running::with(&format!("redis://127.0.0.1:{port}"));

    let status = node.process.wait(LIMIT).await.unwrap();

    assert_eq!(status.code(), Some(64));
    assert!(node.process.log_tail().contains("is not a Redis Cluster node"), "{}", node.process.log_tail());
    lone.kill();
}

#[test]
fn a_key_that_cannot_be_read_lets_nobody_in_because_the_node_does_not_start() {
    let refused = |variables: &[_]| refusal(&[&[REDIS, ("AUTH", "jwt")], variables].concat());
    let who = [("JWT_AUDIENCE", "shop"), ("JWT_ISSUER", "https://issuer.example")];
    assert_eq!(refused(&who), "error: AUTH=jwt needs JWT_SECRET, JWT_PUBLIC_KEY_FILE or JWT_JWKS_FILE");
    assert_eq!(
        refused(&[("JWT_SECRET", "short")]),
        "error: JWT_SECRET (--jwt-secret): must be at least 32 characters long"
    );
    assert_eq!(refused(&[("JWT_SECRET", SECRET)]), "error: AUTH=jwt needs JWT_AUDIENCE");
    let folder = Folder::temporary().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "not a key").unwrap();
    let file = file.to_str().unwrap();
    for setting in ["JWT_PUBLIC_KEY_FILE", "JWT_JWKS_FILE"] {
        let line = refused(&[&who[..], &[(setting, file)]].concat());
        assert!(line.starts_with(&format!("error: {setting}: {file} is not ")), "{line}");
        let line = refused(&[&who[..], &[(setting, "/nowhere")]].concat());
        assert!(line.starts_with(&format!("error: {setting} cannot be read: /nowhere: ")), "{line}");
    }
    assert_eq!(
        refusal(&[REDIS, ("JWT_SECRET", SECRET)]),
        "error: JWT_SECRET is set, but AUTH is not jwt: tokens would not be checked"
    );
    assert!(refusal(&[REDIS, ("TRUSTED_PROXIES", "proxy")]).contains("must be a network like 10.0.0.0/8"));
    assert!(
        refusal(&[REDIS, ("CORS_ORIGIN", "shop.example")])
            .contains("must be an origin like https://shop.example")
    );
}
