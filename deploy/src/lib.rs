//! What a flash sale is deployed with - container files, Compose, Kubernetes, nginx, Redis - read for tests that hold it
//! against itself and against the code.
//!
//! The files are kept by hand and are the truth; how they are used stands in `deploy/README.md`. Linters that are not
//! Rust's are installed by `cargo xtask test` into `.local/deploy-tools` ([`tool`]).

pub mod compose;
pub mod context;
pub mod dockerfile;
pub mod kubernetes;
pub mod settings;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The folder `deploy` of this repository.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The root of this repository.
pub fn repository() -> PathBuf {
    folder().parent().expect("`deploy` lies in the repository").to_owned()
}

/// A linter that `cargo xtask test` installs.
///
/// # Errors
/// When it is not there yet: with what to type.
pub fn tool(name: &str) -> Result<PathBuf> {
    let tools = repository().join(".local/deploy-tools");
    let programs = [tools.join("bin").join(name), tools.join("node_modules/.bin").join(name)];
    let found = programs.into_iter().find(|program| program.exists());
    ensure!(found.is_some(), "{name} is not installed; `cargo xtask test` does that");
    Ok(found.expect("it was just found"))
}
