//! Starts processes so that they end with us.
//!
//! An attached child dies with us, however we die: it runs under `setpriv --pdeathsig`. That signal is sent when the
//! *thread* that spawned the child ends, and a test's thread ends before its process does, so every spawn goes through
//! one thread that lives as long as the process.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, mpsc},
    thread,
};

use anyhow::{Context, Result, anyhow};

use super::Process;

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
        Ok(Process::new(self.name.clone(), self.log.clone(), child))
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
