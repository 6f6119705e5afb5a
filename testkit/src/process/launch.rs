//! Starts processes that end together with their parent.
//!
//! An attached child ends with its parent, even when the parent is killed: it runs under `setpriv --pdeathsig`. The
//! kernel sends that signal when the *thread* that spawned the child ends, and the thread of a test ends before its
//! process does. Every spawn therefore runs on one thread that lives as long as the process.

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

/// Defines if a child may outlive the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Ends with its owner, even when the parent process is killed.
    Attached,
    /// Ends with its owner until the owner releases it. From then on it outlives the parent process.
    Detached,
}

/// The command, environment and lifetime of a process. It can be started any number of times.
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
    /// Creates a launch of `program`. `name` is used in messages, and the output goes to `<name>.log` in `folder`.
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

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, variable: impl Into<String>, value: impl ToString) -> Self {
        self.environment.push((variable.into(), value.to_string()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        variables.into_iter().fold(self, |launch, (variable, value)| launch.env(variable, value))
    }

    /// Sets the lifetime; the default is [`Lifetime::Attached`].
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sends SIGTERM instead of SIGKILL when the parent ends: for programs that must end children of their own.
    #[must_use]
    pub fn terminate_on_parent_death(mut self) -> Self {
        self.death_signal = "TERM";
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// Fails when the program does not exist or its log cannot be written.
    pub fn spawn(&self) -> Result<Process> {
        let child = spawn_on_dedicated_thread(self.command()?)
            .with_context(|| format!("{} could not be started ({})", self.name, self.program.display()))?;
        Ok(Process::new(self.name.clone(), self.log.clone(), child))
    }

    fn command(&self) -> Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = self.base_command();
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        Ok(command)
    }

    fn base_command(&self) -> Command {
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

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

fn spawn_on_dedicated_thread(command: Command) -> Result<Child> {
    static SPAWNER: LazyLock<mpsc::Sender<SpawnRequest>> = LazyLock::new(start_spawning_thread);
    let (answer, spawned) = mpsc::channel();
    SPAWNER.send((command, answer)).map_err(|_| anyhow!("the spawning thread is gone"))?;
    Ok(spawned.recv()??)
}

fn start_spawning_thread() -> mpsc::Sender<SpawnRequest> {
    let (sender, requests) = mpsc::channel::<SpawnRequest>();
    let run = move || {
        for (mut command, answer) in requests {
            // The caller may be gone. The unsent child is then dropped and ends with this process.
            answer.send(command.spawn()).ok();
        }
    };
    thread::Builder::new().name("spawning".into()).spawn(run).expect("the system can create another thread");
    sender
}
