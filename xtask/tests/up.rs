//! Tests of `up` and `down` as a user sees them: `up` opens a sale, names the process that occupies a port, and
//! leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test and its helpers panic at the failed step")]

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    BuildProfile, Folder, Launch, Process,
    ports::{BLOCK_PORTS, PortBlock, is_free, loopback},
    procfs::ProcessIdentity,
    until,
};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// The first `up` of a test run compiles node and coordinator.
const START_LIMIT: Duration = Duration::from_mins(15);
const STOP_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn ctrl_c_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let up = fixture.up_in_the_foreground().await;
    let processes = fixture.processes();
    assert_eq!(
        processes.len(),
        1 + 2 + 1 + 1 + 1 + 6,
        "nginx, nodes, ledger, coordinator, PostgreSQL, Redis"
    );

    up.interrupt();
    let status = up.wait(STOP_LIMIT).await.unwrap();

    assert!(status.success(), "{}", up.log_tail());
    assert!(up.log_tail().contains("all is down"));
    fixture.assert_nothing_is_left(&processes);
}

#[tokio::test]
async fn killed_up_takes_its_processes_along() {
    let fixture = Fixture::new();
    let up = fixture.up_in_the_foreground().await;
    let processes = fixture.processes();

    up.kill();
    let gone = async || processes.iter().all(|process| !process.is_running());
    until("the end of what `up` started", STOP_LIMIT, gone).await.unwrap();

    let down = fixture.xtask("down", &[]);
    assert!(output_text(&down).contains("nothing runs any more"), "{}", output_text(&down));
    fixture.assert_nothing_is_left(&processes);
}

#[tokio::test]
async fn detached_up_refuses_a_second_up() {
    let fixture = Fixture::new();
    let port = fixture.port();

    let up =
        fixture.xtask("up", &["--detach", "--stock", "5", "--port", &port, "--profile", &fixture.profile]);
    assert!(up.status.success(), "{}", output_text(&up));
    let processes = fixture.processes();
    assert!(output_text(&up).contains("curl -i http://127.0.0.1:"), "{}", output_text(&up));
    assert!(output_text(&up).contains("The live view is at http://127.0.0.1:"), "{}", output_text(&up));
    let orders = format!("curl http://127.0.0.1:{}/sales/flash/orders", fixture.ports.first() + 90);
    assert!(output_text(&up).contains(&orders), "{}", output_text(&up));

    let second = fixture.xtask("up", &["--detach", "--port", &port]);
    assert!(!second.status.success());
    assert!(
        output_text(&second).contains("an `up` runs already, at http://127.0.0.1:"),
        "{}",
        output_text(&second)
    );

    let down = fixture.xtask("down", &[]);
    assert!(down.status.success() && output_text(&down).contains("all is down"), "{}", output_text(&down));
    fixture.assert_nothing_is_left(&processes);
}

#[tokio::test]
async fn detached_up_starts_without_a_reader_of_its_output() {
    let fixture = Fixture::new();

    let arguments = [
        "up",
        "--detach",
        "--no-ledger",
        "--port",
        &fixture.port(),
        "--profile",
        &fixture.profile,
        "--folder",
    ];
    let up = status_without_a_reader(Command::new(XTASK).args(arguments).arg(fixture.folder.path()));

    assert!(up.success(), "{up}");
    let processes = fixture.processes();
    assert_eq!(processes.len(), 1 + 2 + 1 + 6, "nginx, nodes, coordinator, Redis");
    let down =
        status_without_a_reader(Command::new(XTASK).args(["down", "--folder"]).arg(fixture.folder.path()));
    assert!(down.success(), "{down}");
    fixture.assert_nothing_is_left(&processes);
}

#[test]
fn programs_report_failures_without_a_reader() {
    let [mut node, mut check] =
        ["flashsale-node", "flashsale-coordinator"].map(|name| Command::new(testkit::binary(name).unwrap()));
    node.env_remove("AUTH");
    check.args(["cluster", "check", "--pairs", "127.0.0.1:9,127.0.0.1:10", "--wait-limit", "1s"]);
    check.env("REDIS_URL", "redis://127.0.0.1:9");

    // A panic would end them with 101.
    assert_eq!(status_without_a_reader(&mut node).code(), Some(64));
    assert_eq!(status_without_a_reader(&mut check).code(), Some(1));
}

#[test]
fn up_reports_a_taken_port_before_starting() {
    let fixture = Fixture::new();
    let taken_port = fixture.ports.first() + 2;
    let _listener = TcpListener::bind(loopback(taken_port)).unwrap();

    let up = fixture.xtask("up", &["--port", &fixture.port()]);

    assert!(!up.status.success());
    let output_text = output_text(&up);
    assert!(output_text.contains(&format!("port {taken_port} (node 2) is taken by")), "{output_text}");
    assert!(output_text.contains("--port"), "{output_text}");
    assert!(!fixture.file().exists());
}

#[test]
fn down_reports_that_nothing_runs() {
    let down = Fixture::new().xtask("down", &[]);

    assert!(down.status.success());
    assert_eq!(output_text(&down), "nothing runs\n");
}

#[test]
fn down_does_not_stop_a_reused_pid() {
    let fixture = Fixture::new();
    let ourselves = ProcessIdentity::of(std::process::id()).unwrap();
    let earlier_process = ProcessIdentity { started_at_ticks: ourselves.started_at_ticks - 1, ..ourselves };
    fs::write(fixture.file(), up_json_with(earlier_process)).unwrap();

    let down = fixture.xtask("down", &[]);

    assert_eq!(output_text(&down), "nothing runs any more; its file is removed\n");
    assert!(!fixture.file().exists());
}

/// The folder and ports of one test.
struct Fixture {
    folder: TempDir,
    logs: Folder,
    ports: PortBlock,
    profile: String,
}

impl Fixture {
    fn new() -> Self {
        let profile = BuildProfile::of_this_program().unwrap().name().to_owned();
        let (folder, logs) = (TempDir::new().unwrap(), Folder::temporary().unwrap());
        Self { folder, logs, ports: PortBlock::take().unwrap(), profile }
    }

    fn port(&self) -> String {
        self.ports.first().to_string()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("up.json")
    }

    async fn up_in_the_foreground(&self) -> Process {
        let launch = Launch::new("up", XTASK, self.logs.path())
            .args(["up", "--port", &self.port(), "--profile", &self.profile, "--folder"])
            .arg(self.folder.path());
        let up = launch.spawn().unwrap();
        let started = async || if self.file().exists() { Ok(()) } else { anyhow::bail!("no up.json") };
        up.wait_until_ready(START_LIMIT, started).await.unwrap();
        up
    }

    fn xtask(&self, command: &str, arguments: &[&str]) -> Output {
        let folder = self.folder.path();
        Command::new(XTASK).arg(command).args(arguments).arg("--folder").arg(folder).output().unwrap()
    }

    fn processes(&self) -> Vec<ProcessIdentity> {
        let file: Value = serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap();
        let started = file["processes"].as_array().unwrap().iter();
        started.map(|process| serde_json::from_value(process.clone()).unwrap()).collect()
    }

    fn assert_nothing_is_left(&self, processes: &[ProcessIdentity]) {
        assert!(processes.iter().all(|process| !process.is_running()), "a process is left");
        let first = self.ports.first();
        let taken: Vec<u16> = (first..first + BLOCK_PORTS).filter(|&port| !is_free(port)).collect();
        assert!(taken.is_empty(), "taken ports: {taken:?}");
        assert!(!self.file().exists(), "up.json is left");
    }
}

/// Runs a program whose standard output and error are closed, as those of `PROGRAM 2>&1 | head -1` are after a line.
fn status_without_a_reader(program: &mut Command) -> ExitStatus {
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().unwrap()
}

fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn up_json_with(process: ProcessIdentity) -> String {
    let started = serde_json::json!({
        "name": "node-1", "pid": process.pid, "startedAtTicks": process.started_at_ticks,
    });
    serde_json::json!({
        "url": "http://127.0.0.1:1", "nodes": [], "coordinators": [], "redis": [], "adminToken": "t",
        "supervisor": null, "processes": [started],
    })
    .to_string()
}
