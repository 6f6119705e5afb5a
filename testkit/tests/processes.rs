//! Who owns a process, and what a taken port looks like.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where, also in what it is told with")]

use std::{net::TcpListener, time::Duration};

use testkit::{
    Folder, Launch, Lifetime, Process,
    ports::{PortBlock, ensure_free, loopback},
    process::{ProcessExit, end},
};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_process_dies_with_its_owner_and_not_with_the_thread_that_asked_for_it() {
    let folder = Folder::temporary().unwrap();
    let launch = shell("echo ready; sleep 600", &folder);

    let process = std::thread::spawn(move || spawn_and_see_it_work(&launch)).join().unwrap();
    let died = process.wait(Duration::from_millis(300)).await.is_ok();
    assert!(!died, "it died with the thread that asked for it");

    let identity = process.identity();
    drop(process);
    assert!(!identity.is_running());
}

#[tokio::test]
async fn a_released_process_stays_until_it_is_ended_by_its_identity() {
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
async fn a_process_that_dies_early_shows_the_end_of_its_log() {
    let folder = Folder::temporary().unwrap();
    let process = shell("echo no such sale >&2; exit 64", &folder).spawn().unwrap();

    let error = process.wait_until_ready(LIMIT, async || anyhow::bail!("not yet")).await.unwrap_err();

    let words = format!("{error:#}");
    assert!(
        words.contains("shell ended early (exit status: 64)") && words.contains("no such sale"),
        "{words}"
    );
}

#[tokio::test]
async fn a_process_that_ignores_a_polite_request_is_killed_with_its_children() {
    let folder = Folder::temporary().unwrap();
    let process = shell("trap '' TERM; sleep 600 & echo ready; wait; wait", &folder).spawn().unwrap();
    testkit::until("the trap", LIMIT, async || process.log_tail().contains("ready")).await.unwrap();

    process.stop(Duration::from_millis(200)).await.unwrap_err();

    assert!(!process.is_running());
}

#[test]
fn a_taken_port_is_named_with_what_holds_it() {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let port = listener.local_addr().unwrap().port();

    let error = ensure_free(port, "nginx").unwrap_err().to_string();

    assert!(error.starts_with(&format!("port {port} (nginx) is taken by ")), "{error}");
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
}

#[test]
fn two_takers_never_get_the_same_ports() {
    let (one, other) = (PortBlock::take().unwrap(), PortBlock::take().unwrap());

    assert_ne!(one.first(), other.first());
}

/// Until it works, it may not have asked yet to die with its parent.
fn spawn_and_see_it_work(launch: &Launch) -> Process {
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
