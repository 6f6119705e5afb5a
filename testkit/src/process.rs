//! Processes with an owner.
//!
//! Each child leads a process group of its own, so a terminal's Ctrl-C reaches only us and we stop children in order.
//! An attached child dies with us, however we die: it runs under `setpriv --pdeathsig`. That signal is sent when the
//! *thread* that spawned the child ends, and a test's thread ends before its process does, so every spawn goes through
//! one thread that lives as long as the process.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{
    procfs::Identity,
    wait::{until, until_ok},
};

/// How much of a dead process's log is shown: enough for an error and what led to it.
const LOG_LINES_SHOWN: usize = 12;

/// Whether a child may outlive the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Dies with its owner, also when we are killed.
    Attached,
    /// Dies with its owner too, until that one releases it: from then on it stays when we end.
    Detached,
}

/// What to start, and how it ends with us. Can be started again and again.
#[derive(Clone, Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    lifetime: Lifetime,
    death_signal: &'static str,
}

/// A running child; dropping it kills its whole process group, unless it was released.
#[derive(Debug)]
pub struct Process {
    name: String,
    identity: Identity,
    log: PathBuf,
    released: AtomicBool,
    child: Mutex<Child>,
}

impl Launch {
    /// A program, named for people; its output goes to `<name>.log` in `folder`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, folder: &Path) -> Self {
        let name = name.into();
        Self {
            log: folder.join(format!("{name}.log")),
            name,
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            lifetime: Lifetime::Attached,
            death_signal: "KILL",
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, variable: impl Into<String>, value: impl ToString) -> Self {
        self.environment.push((variable.into(), value.to_string()));
        self
    }

    /// Says whether it may outlive us (attached if not said).
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// When we die it gets TERM instead of KILL: for a program that has children of its own to end.
    #[must_use]
    pub fn terminated_with_us(mut self) -> Self {
        self.death_signal = "TERM";
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the program is missing or its log cannot be written.
    pub fn spawn(&self) -> Result<Process> {
        let child = on_the_spawning_thread(self.command()?)
            .with_context(|| format!("{} could not be started ({})", self.name, self.program.display()))?;
        // Nobody collected this child yet, so it has its entry under /proc even if it is dead already.
        let identity = Identity::of(child.id()).unwrap_or(Identity { pid: child.id(), started_at_ticks: 0 });
        let (name, log) = (self.name.clone(), self.log.clone());
        Ok(Process { name, identity, log, released: AtomicBool::new(false), child: Mutex::new(child) })
    }

    fn command(&self) -> Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = self.program_that_ends_with_us();
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        Ok(command)
    }

    fn program_that_ends_with_us(&self) -> Command {
        match self.lifetime {
            Lifetime::Detached => Command::new(&self.program),
            Lifetime::Attached => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", self.death_signal, "--"]).arg(&self.program);
                command
            }
        }
    }
}

impl Process {
    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// What tells it from a later process with the same pid.
    pub fn identity(&self) -> Identity {
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
    pub async fn wait_until_ready(
        &self,
        limit: Duration,
        mut ready: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        let waiting = until_ok("readiness", limit, async || if self.is_running() { ready().await } else { Ok(()) });
        let outcome = waiting.await;
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

type Spawn = (Command, mpsc::Sender<io::Result<Child>>);

fn on_the_spawning_thread(command: Command) -> Result<Child> {
    static SPAWNING: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(start_the_spawning_thread);
    let (answer, spawned) = mpsc::channel();
    SPAWNING.send((command, answer)).map_err(|_| anyhow!("the spawning thread is gone"))?;
    Ok(spawned.recv()??)
}

fn start_the_spawning_thread() -> mpsc::Sender<Spawn> {
    let (orders, inbox) = mpsc::channel::<Spawn>();
    let run = move || {
        for (mut command, answer) in inbox {
            // Whoever asked may have given up; the child is dropped with the answer then, and ends with us.
            answer.send(command.spawn()).ok();
        }
    };
    thread::Builder::new().name("spawning".into()).spawn(run).expect("one more thread can be had");
    orders
}
