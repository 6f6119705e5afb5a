//! Parsers for the deployment files of the flash sale that several test programs read. Tests check the container files,
//! Compose, Kubernetes, nginx and Redis for consistency and against the code.
//!
//! The files are written by hand and are the source of truth; `deploy/README.md` describes their use. `cargo xtask
//! test` installs linters that are not Rust crates into `.local/deploy-tools` ([`tool`]).

pub mod context;
pub mod dockerfile;
pub mod settings;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Result, ensure};

/// Returns the folder `deploy` of this repository.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| testkit::workspace_root().join("deploy"));
    &FOLDER
}

/// Returns the root of this repository.
pub fn repository() -> PathBuf {
    folder().parent().expect("`deploy` lies in the repository").to_owned()
}

/// Returns true when the tag of an image is an exact version. A digest may follow.
pub fn has_exact_version(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let numbers: Vec<_> =
        name.rsplit_once(':').map_or("", |(_, tag)| tag).trim_start_matches('v').split('.').collect();
    // A release of PostgreSQL has two numbers.
    let count = if name.starts_with("postgres:") { 2 } else { 3 };
    let is_version = numbers.len() == count && numbers.iter().all(|number| number.parse::<u16>().is_ok());
    is_version && digest.is_none_or(is_digest)
}

/// Returns true for the digest of an image: `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the path of a linter that `cargo xtask test` installs.
///
/// # Errors
/// Fails when the linter is not installed yet. The error names the command that installs it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let tools = repository().join(".local/deploy-tools");
    let programs = [tools.join("bin").join(name), tools.join("node_modules/.bin").join(name)];
    let found = programs.into_iter().find(|program| program.exists());
    ensure!(found.is_some(), "{name} is not installed; `cargo xtask test` does that");
    Ok(found.expect("it was just found"))
}
