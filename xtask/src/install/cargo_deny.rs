//! cargo-deny, which checks the licences, versions and sources of dependencies.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use testkit::binary::cargo;

use super::finish;

/// The version that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// Returns the path of cargo-deny, which is kept in `folder`. Building it takes one to three minutes.
///
/// # Errors
/// Fails when it cannot be fetched from crates.io or built.
pub(crate) fn cargo_deny(folder: &Path) -> Result<PathBuf> {
    let program = folder.join(VERSION).join("bin/cargo-deny");
    if !program.exists() {
        say!("building cargo-deny {VERSION} (cargo install)");
        // It runs once for a second, so it is not worth being optimized.
        let install = ["install", "cargo-deny", "--version", VERSION, "--locked", "--debug", "--root"];
        finish(cargo().args(install).arg(folder.join(VERSION)).env("CARGO_PROFILE_DEV_DEBUG", "0"))
            .context("cargo-deny")?;
    }
    Ok(program)
}
