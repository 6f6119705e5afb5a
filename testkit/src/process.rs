//! Processes with an owner: how they are asked, stopped in the middle, killed, and waited for.
//!
//! Each child leads a process group of its own, so a terminal's Ctrl-C reaches only us and we stop children in order.

mod launch;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::{FutureExt, future::OptionFuture};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{
    procfs::ProcessIdentity,
    wait::{until, until_ok},
};

pub use launch::{Launch, Lifetime};

/// How much of a dead process's log is shown: enough for an error and what led to it.
const LOG_LINES_SHOWN: usize = 12;

/// A running child; dropping it kills its whole process group, unless it was released.
#[derive(Debug)]
pub struct Process {
    name: String,
    identity: ProcessIdentity,
    log: PathBuf,
    released: AtomicBool,
    child: Mutex<Child>,
}

impl Process {
    fn new(name: String, log: PathBuf, child: Child) -> Self {
        // Nobody collected this child yet, so it has its entry under /proc, unless it is dead already.
        let identity = ProcessIdentity::of(child.id())
            .unwrap_or(ProcessIdentity { pid: child.id(), started_at_ticks: 0 });
        Self { name, identity, log, released: AtomicBool::new(false), child: Mutex::new(child) }
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// What tells it from a later process with the same pid.
    pub fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks it to end (SIGTERM).
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to end as a terminal's Ctrl-C does (SIGINT).
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Ends it and whatever it started, at once (SIGKILL to its group), and collects it.
    pub fn kill(&self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            // Either signal fails only if its target is gone already, which is what we want.
            kill_process_group(self.rustix_pid(), Signal::KILL).ok();
            child.wait().ok();
        }
    }

    /// Stops it in the middle of whatever it does (SIGSTOP): its connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Lets it outlive its owner. It outlives this whole process only if it was started [`Lifetime::Detached`].
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// How it ended, if it did.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("waiting for a child of ours cannot fail")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        until(&format!("end of {}", self.name), limit, async || !self.is_running()).await?;
        Ok(self.exit_status().expect("it has just been seen to have ended"))
    }

    /// Asks it to end and waits; past `limit` it is killed, and that is an error.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&self, limit: Duration) -> Result<ExitStatus> {
        self.term();
        let ended = self.wait(limit).await;
        self.kill();
        ended
    }

    /// Looks until `ready` is content.
    ///
    /// # Errors
    /// When it dies before, with the end of its log; or when it is not ready within `limit`, with the last reason.
    pub async fn wait_until_ready<Look>(&self, limit: Duration, mut ready: impl FnMut() -> Look) -> Result<()>
    where
        Look: Future<Output = Result<()>>,
    {
        // A dead process will never be ready, so its death ends the waiting as well.
        let ready_or_dead =
            || OptionFuture::from(self.is_running().then(&mut ready)).map(|ready| ready.unwrap_or(Ok(())));
        let outcome = until_ok("readiness", limit, ready_or_dead).await;
        match self.exit_status() {
            Some(status) => bail!("{} ended early ({status}){}", self.name, self.log_tail()),
            None => outcome.with_context(|| format!("{} is not ready{}", self.name, self.log_tail())),
        }
    }

    /// The last lines of its log, each on a line of its own, with the log's path.
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let shown: String = shown.iter().map(|line| format!("\n    {line}")).collect();
        format!("\n  {}:{shown}", self.log.display())
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            // It may end between the look and the signal; nothing is lost then.
            kill_process(self.rustix_pid(), signal).ok();
        }
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_raw(self.identity.pid.cast_signed()).expect("a child's pid is positive")
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.released.load(Ordering::Relaxed) {
            self.kill();
        }
    }
}

/// How a process that is not our child came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessExit {
    /// It did not run any more.
    Over,
    /// It was asked to end and did.
    Stopped,
    /// It had to be killed.
    Killed,
}

/// Ends a process that is not our child, such as a released one: asks it, and past `limit` kills its group.
///
/// # Errors
/// When we may not, or it does not even end then.
pub async fn end(process: ProcessIdentity, limit: Duration) -> Result<ProcessExit> {
    let pid = Pid::from_raw(process.pid.cast_signed()).context("no process has this pid")?;
    let over = async || !process.is_running();
    if over().await {
        return Ok(ProcessExit::Over);
    }
    kill_process(pid, Signal::TERM).with_context(|| format!("cannot end pid {}", process.pid))?;
    if until("its end", limit, over).await.is_ok() {
        return Ok(ProcessExit::Stopped);
    }
    kill_process_group(pid, Signal::KILL).with_context(|| format!("cannot kill pid {}", process.pid))?;
    until(&format!("end of pid {}", process.pid), limit, over).await?;
    Ok(ProcessExit::Killed)
}
