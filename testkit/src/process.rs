//! Child processes with an owner: signals, freezing, killing, and waiting for their end.
//!
//! Each child leads a process group of its own. A terminal's Ctrl-C therefore reaches only the parent, which stops its
//! children in order.

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

/// Number of log lines shown for a dead process: enough for an error and its context.
const LOG_LINES_SHOWN: usize = 12;

/// A child process. Dropping it kills its whole process group, unless it was released.
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
        // The child is not reaped yet, so its entry under /proc exists, unless the child has already ended.
        let identity = ProcessIdentity::of(child.id())
            .unwrap_or(ProcessIdentity { pid: child.id(), started_at_ticks: 0 });
        Self { name, identity, log, released: AtomicBool::new(false), child: Mutex::new(child) }
    }

    /// The name of the process, used in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// The identity, which distinguishes the process from a later one with the same pid.
    pub fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// The file that receives its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks the process to end (SIGTERM).
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Interrupts the process as Ctrl-C in a terminal does (SIGINT).
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Kills the process and all its children (SIGKILL to the group), and reaps it.
    pub fn kill(&self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            // Both calls fail only when the process has already ended, which is the desired state.
            kill_process_group(self.rustix_pid(), Signal::KILL).ok();
            child.wait().ok();
        }
    }

    /// Freezes the process (SIGSTOP): its connections stay open and get no answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes a frozen process (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Freezes the process and its children.
    pub fn freeze_group(&self) {
        self.signal_group(Signal::STOP);
    }

    /// Resumes the process and its children.
    pub fn thaw_group(&self) {
        self.signal_group(Signal::CONT);
    }

    /// Asks the process to reload its configuration (SIGHUP).
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Lets the process outlive this value. It outlives the parent process only when it was started as
    /// [`Lifetime::Detached`].
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Returns true until the process has ended.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// The exit status, or `None` while the process runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("waiting for a child of ours cannot fail")
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// Fails when the process still runs after `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        until(&format!("end of {}", self.name), limit, async || !self.is_running()).await?;
        Ok(self.exit_status().expect("the wait above saw it end"))
    }

    /// Asks the process to end and waits. Kills it after `limit`.
    ///
    /// # Errors
    /// Fails when the process had to be killed.
    pub async fn stop(&self, limit: Duration) -> Result<ExitStatus> {
        self.term();
        let ended = self.wait(limit).await;
        self.kill();
        ended
    }

    /// Polls `ready` until it succeeds.
    ///
    /// # Errors
    /// Fails when the process ends before, with the end of its log. Fails when it is not ready within `limit`, with
    /// the last error of `ready`.
    pub async fn wait_until_ready<Check>(
        &self,
        limit: Duration,
        mut ready: impl FnMut() -> Check,
    ) -> Result<()>
    where
        Check: Future<Output = Result<()>>,
    {
        // A dead process never gets ready, so its end stops the wait as well.
        let ready_or_dead =
            || OptionFuture::from(self.is_running().then(&mut ready)).map(|ready| ready.unwrap_or(Ok(())));
        let outcome = until_ok("readiness", limit, ready_or_dead).await;
        match self.exit_status() {
            Some(status) => bail!("{} ended early ({status}){}", self.name, self.log_tail()),
            None => outcome.with_context(|| format!("{} is not ready{}", self.name, self.log_tail())),
        }
    }

    /// The path of the log and its last lines, each on its own line.
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let shown: String = shown.iter().map(|line| format!("\n    {line}")).collect();
        format!("\n  {}:{shown}", self.log.display())
    }

    fn signal_group(&self, signal: Signal) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            kill_process_group(self.rustix_pid(), signal).ok();
        }
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            // The process may end between the check and the signal. The failed signal is then harmless.
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

/// How a process that is not a child of this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessExit {
    /// It was not running.
    NotRunning,
    /// It ended after SIGTERM.
    Stopped,
    /// It was killed.
    Killed,
}

/// Ends a process that is not a child of this one, such as a released one. Sends SIGTERM, and after `limit` SIGKILL to
/// its group.
///
/// # Errors
/// Fails when the signal is not permitted, or the process survives SIGKILL for `limit`.
pub async fn end(process: ProcessIdentity, limit: Duration) -> Result<ProcessExit> {
    let pid = Pid::from_raw(process.pid.cast_signed()).context("no process has this pid")?;
    let ended = async || !process.is_running();
    if ended().await {
        return Ok(ProcessExit::NotRunning);
    }
    kill_process(pid, Signal::TERM).with_context(|| format!("cannot end pid {}", process.pid))?;
    if until("its end", limit, ended).await.is_ok() {
        return Ok(ProcessExit::Stopped);
    }
    kill_process_group(pid, Signal::KILL).with_context(|| format!("cannot kill pid {}", process.pid))?;
    until(&format!("end of pid {}", process.pid), limit, ended).await?;
    Ok(ProcessExit::Killed)
}
