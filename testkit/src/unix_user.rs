//! Servers that refuse to run as root, or should not: they are started as the user that their package created.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{Lifetime, binary::installed};

/// A user of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnixUser {
    uid: u32,
    gid: u32,
}

impl UnixUser {
    /// Returns the user of this name, or `None` when this process is not root: servers then run as its own user.
    ///
    /// # Errors
    /// Fails when there is no such user. `package` creates it.
    pub(crate) fn of_server(name: &str, package: &str) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let line = users.lines().find(|line| line.split(':').next() == Some(name));
        let line =
            line.with_context(|| format!("the user {name} does not exist; install the package {package}"))?;
        let mut numbers = line.split(':').skip(2);
        let mut number = || numbers.next().and_then(|number| number.parse().ok()).context("/etc/passwd");
        Ok(Some(Self { uid: number()?, gid: number()? }))
    }

    /// Gives the user a folder, and the way to it: through the folder above and, if it is private, the one above that.
    ///
    /// # Errors
    /// Fails when this process may not, or a folder further above is closed to the user.
    pub(crate) fn own(self, folder: &Path) -> Result<()> {
        // The user needs the way to the folder, and nothing else on it.
        let above = folder.parent().context("a server needs a folder of its own")?;
        let private = above.parent().filter(|folder| is_private(folder));
        for folder in [Some(above), private].into_iter().flatten() {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        }
        ensure_way_to(above)?;
        self.take(folder)
    }

    /// Gives the user a file or a folder.
    ///
    /// # Errors
    /// Fails when this process may not.
    pub(crate) fn take(self, path: &Path) -> Result<()> {
        Ok(chown(path, Some(self.uid), Some(self.gid))?)
    }
}

/// Checks that every user can enter the folder. Folders above those of the server are not changed.
fn ensure_way_to(folder: &Path) -> Result<()> {
    let is_closed =
        |folder: &&Path| fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 == 0);
    match folder.ancestors().find(is_closed) {
        None => Ok(()),
        Some(closed) => bail!(
            "this server does not run as root, and its user cannot enter {}; use a folder that every user can enter, or \
             start this as another user",
            closed.display()
        ),
    }
}

/// Returns the command that runs a program as a user, and that ends it with the process that started it if it is attached.
///
/// # Errors
/// Fails when `setpriv` is not installed.
pub(crate) fn command_as(
    user: Option<UnixUser>,
    program: &Path,
    lifetime: Lifetime,
) -> Result<(PathBuf, Vec<String>)> {
    let Some(UnixUser { uid, gid }) = user else { return Ok((program.to_owned(), Vec::new())) };
    let mut arguments = vec![format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()];
    if lifetime == Lifetime::Attached {
        // The kernel forgets the signal of an attached process when the process changes its user.
        arguments.push("--pdeathsig=KILL".into());
    }
    arguments.push(program.display().to_string());
    Ok((installed("setpriv").context("setpriv is not installed")?, arguments))
}

fn is_private(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o077 == 0)
}
