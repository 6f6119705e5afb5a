//! `cargo xtask browser`: buyers with a real browser, in front of what `up` runs.
//!
//! The stories are in `browser/`; here is only what they need around them.

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

/// What `browser` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only stories whose names match this regular expression.
    #[arg(value_name = "PATTERN")]
    stories: Option<String>,
    /// The public port of the shop; everything else listens on the hundred ports after it.
    #[arg(long, default_value = "18080")]
    port: String,
    /// The folder of data, logs and screenshots; `.local/browser` in the workspace if not given.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

pub(crate) async fn browser(options: Options) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    ensure_installed(&[CHROMIUM, NODE, NPM])?;
    let stories = workspace_root().join("browser");
    run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&stories))?;
    let folder = options.folder.unwrap_or_else(|| workspace_root().join(".local/browser"));
    let shop = BrowserSystem::open(folder, &options.port)?;
    let told = shop.stories(&stories, options.stories.as_deref())?;
    tokio::select! {
        status = tokio::process::Command::from(told).kill_on_drop(true).status() => {
            println!("what buyers saw is in {}", shop.screenshots().display());
            ensure!(status.context("node does not run")?.success(), "some stories ended otherwise");
            Ok(())
        }
        () = interruption.comes() => bail!("interrupted"),
    }
}

/// What runs while stories are told; dropping it takes it down.
struct BrowserSystem {
    folder: PathBuf,
}

impl BrowserSystem {
    fn open(folder: PathBuf, port: &str) -> Result<Self> {
        run(xtask("up", &folder)?.args(["--detach", "--port", port]))?;
        let shop = Self { folder };
        fs::create_dir_all(shop.screenshots())?;
        Ok(shop)
    }

    fn stories(&self, folder: &Path, pattern: Option<&str>) -> Result<Command> {
        let mut command = Command::new("node");
        command.arg("--test").args(pattern.map(|pattern| format!("--test-name-pattern={pattern}")));
        command.current_dir(folder);
        command.env("UP_JSON", fs::canonicalize(self.folder.join("up.json"))?);
        command.env("SCREENSHOTS", fs::canonicalize(self.screenshots())?);
        command.env("CHROMIUM", installed(CHROMIUM.program).context("there is no chromium")?);
        Ok(command)
    }

    fn screenshots(&self) -> PathBuf {
        self.folder.join("screenshots")
    }
}

impl Drop for BrowserSystem {
    fn drop(&mut self) {
        if let Err(error) = xtask("down", &self.folder).and_then(|mut down| run(&mut down)) {
            eprintln!("the shop was not taken down: {error:#}");
        }
    }
}

/// The command of this program that a person would type.
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
