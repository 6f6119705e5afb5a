//! Programs to start: those of this workspace, built when needed, and installed ones.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use crate::workspace_root;

/// Folders of system programs such as nginx. They are searched too because the `PATH` of some users lacks them.
const ADMINISTRATION_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// How cargo builds: the profile and the target folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BuildProfile {
    name: String,
    target: PathBuf,
}

impl BuildProfile {
    /// Returns the profile and the target folder of the running program, so that cargo reuses what is already built.
    ///
    /// # Errors
    /// Fails when the running program is not in a target folder.
    pub fn of_this_program() -> Result<Self> {
        let program = env::current_exe()?;
        let folders = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
        let folder = folders.context("the running program has no parent folder")?;
        let target = folder.parent().context("the running program is not in a target folder")?;
        let name = folder.file_name().context("the target folder has no profile")?.to_string_lossy();
        // The folder of cargo's `dev` profile is called `debug`.
        let name = if name == "debug" { "dev".into() } else { name };
        Ok(Self { name: name.into_owned(), target: target.to_owned() })
    }

    /// Returns the same target folder with another profile: `dev`, `release`, …
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The name of the profile: `dev`, `release`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Builds a program of this workspace and returns its path.
    ///
    /// The command names no package, so cargo chooses the features of dependencies for the whole workspace, as it does
    /// for tests. The same dependencies are then not built again for each program.
    ///
    /// # Errors
    /// Fails when the program does not compile. The compiler's messages go to standard error.
    pub fn build(&self, program: &str) -> Result<PathBuf> {
        self.build_target("--bin", program, &[])?;
        Ok(self.folder().join(program))
    }

    /// Builds a program with a feature (`package/feature`) and returns its path.
    ///
    /// # Errors
    /// See [`Self::build`].
    pub fn build_with(&self, program: &str, feature: &str) -> Result<PathBuf> {
        self.build_target("--bin", program, &["--features", feature])?;
        Ok(self.folder().join(program))
    }

    /// Builds an example of this workspace and returns its path.
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

/// Returns a cargo command in this workspace with the environment of a developer's shell.
///
/// It removes the variables that an outer cargo sets for the programs it runs. Some build scripts read them (ring's
/// does): these would run again and cause rebuilds, alternating with those of the outer cargo.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(workspace_root());
    for (variable, _) in
        env::vars_os().filter(|(variable, _)| is_set_by_outer_cargo(&variable.to_string_lossy()))
    {
        cargo.env_remove(variable);
    }
    cargo
}

fn is_set_by_outer_cargo(variable: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

/// Builds a program of this workspace with the profile of the running one, at most once per process, and returns its
/// path.
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

/// Returns the path of an installed program, or `None` when it is not installed.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATION_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| Path::is_file(path))
}
