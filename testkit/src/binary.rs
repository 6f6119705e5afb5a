//! Programs to start: those of this workspace, built when needed, and those that are installed.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use crate::workspace_root;

/// Where administrators' programs such as nginx lie, also for users whose `PATH` leaves these out.
const ADMINISTRATION_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// How cargo builds: its profile, and the target folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BuildProfile {
    name: String,
    target: PathBuf,
}

impl BuildProfile {
    /// What the running program itself was built with, so that nothing is built a second time.
    ///
    /// # Errors
    /// When the running program does not lie in a target folder.
    pub fn of_this_program() -> Result<Self> {
        let program = env::current_exe()?;
        let folders = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
        let folder = folders.context("the running program lies in no folder")?;
        let target = folder.parent().context("the running program lies in no target folder")?;
        let name = folder.file_name().context("the target folder has no profile")?.to_string_lossy();
        // Cargo calls the profile `dev` and its folder `debug`.
        let name = if name == "debug" { "dev".into() } else { name };
        Ok(Self { name: name.into_owned(), target: target.to_owned() })
    }

    /// The same target folder with another profile: `dev`, `release`, …
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// What cargo calls it: `dev`, `release`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Builds a program of this workspace and tells where it is.
    ///
    /// No package is named: cargo then chooses the features of dependencies for the whole workspace, as it does for
    /// tests, and has not to build the same dependencies again for each program.
    ///
    /// # Errors
    /// When it does not compile; the compiler's words have gone to standard error.
    pub fn build(&self, program: &str) -> Result<PathBuf> {
        self.build_target("--bin", program, &[])?;
        Ok(self.folder().join(program))
    }

    /// Builds a program that takes a feature (`package/feature`) and tells where it is.
    ///
    /// # Errors
    /// See [`Self::build`].
    pub fn build_with(&self, program: &str, feature: &str) -> Result<PathBuf> {
        self.build_target("--bin", program, &["--features", feature])?;
        Ok(self.folder().join(program))
    }

    /// Builds an example of this workspace and tells where it is.
    ///
    /// # Errors
    /// See [`Self::build`].
    pub fn build_example(&self, example: &str) -> Result<PathBuf> {
        self.build_target("--example", example, &[])?;
        Ok(self.folder().join("examples").join(example))
    }

    fn build_target(&self, kind: &str, name: &str, more: &[&str]) -> Result<()> {
        let mut cargo = cargo();
        cargo
            .args(["build", kind, name, "--profile", &self.name, "--target-dir"])
            .arg(&self.target)
            .args(more);
        ensure!(cargo.status().context("cargo does not run")?.success(), "{name} does not compile");
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.target.join(if self.name == "dev" { "debug" } else { &self.name })
    }
}

/// Cargo, in this workspace, as if a person had called it.
///
/// What an outer cargo tells the programs that it runs is taken away: build scripts that look at it (ring's does)
/// would run again, and everything behind them would be built again, in turn with the outer cargo.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(workspace_root());
    for (variable, _) in
        env::vars_os().filter(|(variable, _)| is_of_the_outer_cargo(&variable.to_string_lossy()))
    {
        cargo.env_remove(variable);
    }
    cargo
}

fn is_of_the_outer_cargo(variable: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

/// A program of this workspace, built like the running one, at most once a process.
///
/// # Errors
/// See [`BuildProfile::build`].
pub fn binary(program: &str) -> Result<PathBuf> {
    static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.get(program) {
        return Ok(path.clone());
    }
    let path = BuildProfile::of_this_program()?.build(program)?;
    built.insert(program.to_owned(), path.clone());
    Ok(path)
}

/// Where an installed program is, if it is.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATION_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| Path::is_file(path))
}
