//! `cargo xtask down`: stops the processes of an earlier `up`. Never stops another process that has the same pid.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use testkit::process::{ProcessExit, end};

use crate::running::{LocalFolder, RunningSystem};

/// Time for a supervisor to drain the nodes and then stop everything else.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(60);

/// Time for a process to stop. A node first answers the requests in flight; all others stop at once.
const PROCESS_LIMIT: Duration = Duration::from_secs(15);

/// Arguments of `cargo xtask down`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder that was passed to `up`. Defaults to `.local` in the workspace.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

pub(crate) async fn down(options: &Options) -> Result<()> {
    let folder = LocalFolder::at(options.folder.as_deref())?;
    match folder.read()? {
        None => say!("nothing runs"),
        Some(running) if !running.is_alive() => say!("nothing runs any more; its file is removed"),
        Some(running) => stop(&running).await?,
    }
    folder.remove_file()
}

/// Stops the supervisor, which stops all other processes in order. Then stops what is left, one process at a time.
async fn stop(running: &RunningSystem) -> Result<()> {
    if let Some(supervisor) = running.supervisor {
        let ending = end(supervisor, SUPERVISOR_LIMIT).await?;
        report("up", supervisor.pid, ending);
    }
    for started in &running.processes {
        let ending = end(started.identity, PROCESS_LIMIT).await?;
        report(&started.name, started.identity.pid, ending);
    }
    say!("all is down");
    Ok(())
}

fn report(name: &str, pid: u32, ending: ProcessExit) {
    match ending {
        ProcessExit::NotRunning => {}
        ProcessExit::Stopped => say!("{name} (pid {pid}) stopped"),
        ProcessExit::Killed => say!("{name} (pid {pid}) did not stop and was killed"),
    }
}
