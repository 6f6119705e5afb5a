//! `healthcheck` as the images run it, beside the real programs.

use std::fs;
use std::time::{Duration, Instant};

use deploy::dockerfile::image;
use testkit::ports::PortBlock;
use testkit::{Folder, Launch, Process, binary, until};

/// Longest time that an image gives its healthcheck.
const TIMEOUT: Duration = Duration::from_secs(3);
/// For a process to start, on a machine that builds beside it.
const SOON: Duration = Duration::from_secs(20);

/// The processes of a container, without the container: all of them have its environment.
struct Container {
    target: &'static str,
    folder: Folder,
    ports: PortBlock,
    host: &'static str,
}

impl Container {
    fn of(target: &'static str, host: &'static str) -> Self {
        Self { target, folder: Folder::temporary().unwrap(), ports: PortBlock::take().unwrap(), host }
    }

    /// Nothing is at its Redis: that makes it no less alive, only not ready.
    fn start(&self) -> Process {
        let entrypoint = image(self.target).unwrap().entrypoint;
        let launch = self.launch("program", &entrypoint).env("REDIS_URL", "redis://127.0.0.1:1");
        launch.env("ADMIN_TOKEN", "0123456789abcdef").spawn().unwrap()
    }

    fn healthcheck(&self) -> Launch {
        self.launch("healthcheck", &image(self.target).unwrap().healthcheck)
    }

    async fn is_healthy(&self) -> bool {
        self.outcome(self.healthcheck()).await.0 == Some(0)
    }

    async fn becomes_healthy(&self) {
        until("health", SOON, || self.is_healthy()).await.unwrap();
    }

    /// Exit code and words of a process that ends by itself.
    async fn outcome(&self, launch: Launch) -> (Option<i32>, String) {
        fs::remove_file(self.folder.path().join("healthcheck.log")).ok();
        let process = launch.spawn().unwrap();
        let code = process.wait(SOON).await.unwrap().code();
        (code, fs::read_to_string(process.log()).unwrap())
    }

    fn launch(&self, name: &str, command: &[String]) -> Launch {
        let (program, arguments) = command.split_first().unwrap();
        let program = binary(program.rsplit('/').next().unwrap()).unwrap();
        Launch::new(name, program, self.folder.path())
            .args(arguments)
            .env("HOST", self.host)
            .env("PORT", self.ports.first())
            .env("OPS_PORT", self.ports.first() + 1)
    }

    /// Where operators are answered.
    fn asked(&self) -> String {
        let port = self.ports.first() + u16::from(self.target == "node");
        format!("{}:{port}", self.host)
    }
}

/// Unhealthy, and why in one line.
fn assert_unhealthy((code, words): (Option<i32>, String), why: &str) {
    assert!(code == Some(1) && words.lines().count() == 1 && words.contains(why), "{code:?}: {words}");
}

async fn is_healthy_while_it_lives(target: &'static str) {
    let container = Container::of(target, "0.0.0.0");
    assert_unhealthy(container.outcome(container.healthcheck()).await, "Connection refused");

    let program = container.start();
    container.becomes_healthy().await;
    assert_eq!(container.outcome(container.healthcheck()).await, (Some(0), String::new()));

    // The kernel still accepts connections for it.
    program.freeze();
    let since = Instant::now();
    assert_unhealthy(container.outcome(container.healthcheck()).await, "does not answer within 2s");
    assert!(since.elapsed() < TIMEOUT, "it took {:?}", since.elapsed());
    program.thaw();
    container.becomes_healthy().await;
}

#[tokio::test]
async fn a_node_is_healthy_while_it_lives() {
    is_healthy_while_it_lives("node").await;
}

#[tokio::test]
async fn a_coordinator_is_healthy_while_it_lives() {
    is_healthy_while_it_lives("coordinator").await;
}

#[tokio::test]
async fn whoever_listens_at_one_address_is_asked_there() {
    for target in ["node", "coordinator"] {
        let container = Container::of(target, "127.0.0.7");
        let _program = container.start();
        container.becomes_healthy().await;
        let elsewhere = container.healthcheck().env("HOST", "127.0.0.8");
        assert_unhealthy(container.outcome(elsewhere).await, "127.0.0.8:");
    }
}

#[tokio::test]
async fn a_healthcheck_refuses_a_port_that_cannot_be_and_reads_no_other_setting() {
    for target in ["node", "coordinator"] {
        let container = Container::of(target, "127.0.0.1");
        let asked = container.asked();
        let (code, words) = container.outcome(container.healthcheck().env("PORT", "http")).await;
        assert!(
            code == Some(64) && words.lines().count() == 1 && words.contains("PORT"),
            "{code:?}: {words}"
        );
        let others = container.healthcheck().env("REDIS_URL", "nonsense").env("ADMIN_TOKEN", "short");
        assert_unhealthy(container.outcome(others).await, &asked);
    }
}

#[tokio::test]
async fn help_shows_it() {
    for target in ["node", "coordinator"] {
        let container = Container::of(target, "127.0.0.1");
        let help = container.launch("help", &image(target).unwrap().entrypoint).arg("--help");
        let (code, help) = container.outcome(help).await;
        assert!(code == Some(0) && help.contains("\n  healthcheck  Asks "), "{help}");
    }
}
