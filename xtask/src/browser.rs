//! `cargo xtask browser`: runs the browser tests against a sale started with `up`.
//!
//! The tests are in `browser/`. This module starts and stops the system that they need.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use testkit::{binary::installed, workspace_root};

use crate::{
    install::{CHROMIUM, NODE, NPM, ensure_installed},
    interruption::Interruption,
};

/// Arguments of `cargo xtask browser`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only the stories whose names match this regular expression.
    #[arg(value_name = "PATTERN")]
    stories: Option<String>,
    /// The public port of the shop. All other services listen on the hundred ports after it.
    #[arg(long, default_value = "18080")]
    port: String,
    /// The folder for data, logs and screenshots. Defaults to `.local/browser` in the workspace.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

pub(crate) async fn browser(options: Options) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    ensure_installed(&[CHROMIUM, NODE, NPM])?;
    let stories = workspace_root().join("browser");
    run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&stories))?;
    let folder = options.folder.unwrap_or_else(|| workspace_root().join(".local/browser"));
    let system = BrowserSystem::open(folder, &options.port)?;
    let command = system.stories(&stories, options.stories.as_deref())?;
    tokio::select! {
        status = tokio::process::Command::from(command).kill_on_drop(true).status() => {
            say!("screenshots are in {}", system.screenshots().display());
            ensure!(status.context("node does not run")?.success(), "some stories failed");
            Ok(())
        }
        () = interruption.received() => bail!("interrupted"),
    }
}

/// The system that runs during the tests. It is stopped on drop.
struct BrowserSystem {
    folder: PathBuf,
}

impl BrowserSystem {
    fn open(folder: PathBuf, port: &str) -> Result<Self> {
        run(xtask("up", &folder)?.args(["--detach", "--port", port]))?;
        let system = Self { folder };
        fs::create_dir_all(system.screenshots())?;
        Ok(system)
    }

    fn stories(&self, folder: &Path, pattern: Option<&str>) -> Result<Command> {
        let mut command = Command::new("node");
        command.arg("--test").args(pattern.map(|pattern| format!("--test-name-pattern={pattern}")));
        command.current_dir(folder);
        command.env("UP_JSON", fs::canonicalize(self.folder.join("up.json"))?);
        command.env("SCREENSHOTS", fs::canonicalize(self.screenshots())?);
        command.env("CHROMIUM", installed(CHROMIUM.program).context("chromium is not installed")?);
        Ok(command)
    }

    fn screenshots(&self) -> PathBuf {
        self.folder.join("screenshots")
    }
}

impl Drop for BrowserSystem {
    fn drop(&mut self) {
        if let Err(error) = xtask("down", &self.folder).and_then(|mut down| run(&mut down)) {
            complain!("the system was not stopped: {error:#}");
        }
    }
}

/// Builds a command that runs this program again with the given subcommand.
fn xtask(command: &str, folder: &Path) -> Result<Command> {
    let mut xtask = Command::new(std::env::current_exe()?);
    xtask.arg(command).args([OsStr::new("--folder"), folder.as_os_str()]);
    Ok(xtask)
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("`{program}` does not run"))?;
    ensure!(status.success(), "`{program}`: {status}");
    Ok(())
}
