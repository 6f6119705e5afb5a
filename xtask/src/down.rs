//! `cargo xtask down`: stops what an `up` left, and nothing that only has the same pid.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use testkit::process::{ProcessExit, end};

use crate::running::{LocalFolder, RunningSystem};

/// A supervisor stops nodes that drain, then everything else.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(60);

/// A node answers what is in flight first; everything else ends at once.
const PROCESS_LIMIT: Duration = Duration::from_secs(15);

/// What `down` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder that `up` was given; `.local` in the workspace if not given.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

pub(crate) async fn down(options: &Options) -> Result<()> {
    let folder = LocalFolder::at(options.folder.as_deref())?;
    match folder.read()? {
        None => println!("nothing runs"),
        Some(running) if !running.is_alive() => println!("nothing runs any more; its file is removed"),
        Some(running) => stop(&running).await?,
    }
    folder.forget()
}

/// A supervisor takes everything down by itself, in good order; what it leaves is stopped one by one.
async fn stop(running: &RunningSystem) -> Result<()> {
    if let Some(supervisor) = running.supervisor {
        let ending = end(supervisor, SUPERVISOR_LIMIT).await?;
        report("up", supervisor.pid, ending);
    }
    for started in &running.processes {
        let ending = end(started.identity, PROCESS_LIMIT).await?;
        report(&started.name, started.identity.pid, ending);
    }
    println!("all is down");
    Ok(())
}

fn report(name: &str, pid: u32, ending: ProcessExit) {
    match ending {
        ProcessExit::Over => {}
        ProcessExit::Stopped => println!("{name} (pid {pid}) stopped"),
        ProcessExit::Killed => println!("{name} (pid {pid}) did not stop and was killed"),
    }
}
