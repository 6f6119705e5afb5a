//! Ownership of processes, and errors about taken ports.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

use std::{net::TcpListener, time::Duration};

use testkit::{
    Folder, Launch, Lifetime, Process,
    ports::{PortBlock, ensure_free, loopback},
    process::{ProcessExit, end},
};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn process_ends_with_owner_not_with_spawning_thread() {
    let folder = Folder::temporary().unwrap();
    let launch = shell("echo ready; sleep 600", &folder);

    let process = std::thread::spawn(move || spawn_and_wait_until_ready(&launch)).join().unwrap();
    let died = process.wait(Duration::from_millis(300)).await.is_ok();
    assert!(!died, "it ended with the thread that spawned it");

    let identity = process.identity();
    drop(process);
    assert!(!identity.is_running());
}

#[tokio::test]
async fn released_process_runs_until_ended_by_identity() {
    let folder = Folder::temporary().unwrap();
    let process = sleeper(&folder).lifetime(Lifetime::Detached).spawn().unwrap();
    let identity = process.identity();

    process.release();
    drop(process);
    assert!(identity.is_running());

    assert_eq!(end(identity, LIMIT).await.unwrap(), ProcessExit::Stopped);
    assert_eq!(end(identity, LIMIT).await.unwrap(), ProcessExit::NotRunning);
}

#[tokio::test]
async fn early_exit_error_contains_the_log_tail() {
    let folder = Folder::temporary().unwrap();
    let process = shell("echo no such sale >&2; exit 64", &folder).spawn().unwrap();

    let error = process.wait_until_ready(LIMIT, async || anyhow::bail!("not yet")).await.unwrap_err();

    let message = format!("{error:#}");
    assert!(
        message.contains("shell ended early (exit status: 64)") && message.contains("no such sale"),
        "{message}"
    );
}

#[tokio::test]
async fn process_ignoring_sigterm_is_killed_with_its_children() {
    let folder = Folder::temporary().unwrap();
    let process = shell("trap '' TERM; sleep 600 & echo ready; wait; wait", &folder).spawn().unwrap();
    testkit::until("the trap", LIMIT, async || process.log_tail().contains("ready")).await.unwrap();

    process.stop(Duration::from_millis(200)).await.unwrap_err();

    assert!(!process.is_running());
}

#[test]
fn taken_port_error_names_its_holder() {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let port = listener.local_addr().unwrap().port();

    let error = ensure_free(port, "nginx").unwrap_err().to_string();

    assert!(error.starts_with(&format!("port {port} (nginx) is taken by ")), "{error}");
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
}

#[test]
fn port_blocks_are_distinct() {
    let (one, other) = (PortBlock::take().unwrap(), PortBlock::take().unwrap());

    assert_ne!(one.first(), other.first());
}

/// Spawns a process and waits for its output. Before that, `setpriv` may not have requested the death signal yet.
fn spawn_and_wait_until_ready(launch: &Launch) -> Process {
    let process = launch.spawn().unwrap();
    while !process.log_tail().contains("ready") {
        std::thread::yield_now();
    }
    process
}

fn sleeper(folder: &Folder) -> Launch {
    Launch::new("sleeper", "sleep", folder.path()).arg("600")
}

fn shell(script: &str, folder: &Folder) -> Launch {
    Launch::new("shell", "sh", folder.path()).args(["-c", script])
}
