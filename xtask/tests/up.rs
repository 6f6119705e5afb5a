//! `up` as a person meets it: it opens a sale, says who is in the way, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where, also in what it is told with")]

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
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
async fn ctrl_c_leaves_no_process_no_port_and_no_file_behind() {
    let place = Place::new();
    let up = place.up_in_the_foreground().await;
    let processes = place.processes();
    assert_eq!(processes.len(), 1 + 2 + 1 + 6, "nginx, nodes, coordinator, Redis");

    up.interrupt();
    let status = up.wait(STOP_LIMIT).await.unwrap();

    assert!(status.success(), "{}", up.log_tail());
    assert!(up.log_tail().contains("all is down"));
    place.assert_nothing_is_left(&processes);
}

#[tokio::test]
async fn a_killed_up_takes_everything_along_and_the_next_one_says_so() {
    let place = Place::new();
    let up = place.up_in_the_foreground().await;
    let processes = place.processes();

    up.kill();
    let gone = async || processes.iter().all(|process| !process.is_running());
    until("the end of what `up` started", STOP_LIMIT, gone).await.unwrap();

    let down = place.xtask("down", &[]);
    assert!(said(&down).contains("nothing runs any more"), "{}", said(&down));
    place.assert_nothing_is_left(&processes);
}

#[tokio::test]
async fn a_detached_up_sells_until_down_and_refuses_a_second_one() {
    let place = Place::new();
    let port = place.port();

    let up = place.xtask("up", &["--detach", "--stock", "5", "--port", &port, "--profile", &place.profile]);
    assert!(up.status.success(), "{}", said(&up));
    let processes = place.processes();
    assert!(said(&up).contains("curl -i http://127.0.0.1:"), "{}", said(&up));
    assert!(said(&up).contains("The live view is at http://127.0.0.1:"), "{}", said(&up));

    let second = place.xtask("up", &["--detach", "--port", &port]);
    assert!(!second.status.success());
    assert!(said(&second).contains("an `up` runs already, at http://127.0.0.1:"), "{}", said(&second));

    let down = place.xtask("down", &[]);
    assert!(down.status.success() && said(&down).contains("all is down"), "{}", said(&down));
    place.assert_nothing_is_left(&processes);
}

#[test]
fn a_taken_port_is_named_before_anything_starts() {
    let place = Place::new();
    let in_the_way = place.ports.first() + 2;
    let _listener = TcpListener::bind(loopback(in_the_way)).unwrap();

    let up = place.xtask("up", &["--port", &place.port()]);

    assert!(!up.status.success());
    let said = said(&up);
    assert!(said.contains(&format!("port {in_the_way} (node 2) is taken by")), "{said}");
    assert!(said.contains("--port"), "{said}");
    assert!(!place.file().exists());
}

#[test]
fn down_says_that_nothing_runs() {
    let down = Place::new().xtask("down", &[]);

    assert!(down.status.success());
    assert_eq!(said(&down), "nothing runs\n");
}

#[test]
fn a_file_about_a_pid_that_somebody_else_has_now_stops_nobody() {
    let place = Place::new();
    let ourselves = ProcessIdentity::of(std::process::id()).unwrap();
    let an_earlier_process =
        ProcessIdentity { started_at_ticks: ourselves.started_at_ticks - 1, ..ourselves };
    fs::write(place.file(), file_naming(an_earlier_process)).unwrap();

    let down = place.xtask("down", &[]);

    assert_eq!(said(&down), "nothing runs any more; its file is removed\n");
    assert!(!place.file().exists());
}

/// A folder and ports of one test.
struct Place {
    folder: TempDir,
    logs: Folder,
    ports: PortBlock,
    profile: String,
}

impl Place {
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn file_naming(process: ProcessIdentity) -> String {
    let started = serde_json::json!({
        "name": "node-1", "pid": process.pid, "startedAtTicks": process.started_at_ticks,
    });
    serde_json::json!({
        "url": "http://127.0.0.1:1", "nodes": [], "coordinators": [], "redis": [], "adminToken": "t",
        "supervisor": null, "processes": [started],
    })
    .to_string()
}
