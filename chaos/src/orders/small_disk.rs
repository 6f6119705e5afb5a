//! A file system in memory that can be full. PostgreSQL keeps the orders on it for a while.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use testkit::binary::installed;

/// Size while the disk is not full. Only what is written takes memory.
const SIZE: &str = "size=1g";

/// A mounted file system. Dropping it unmounts it.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Checks that this process can mount file systems.
    ///
    /// # Errors
    /// Fails when a requirement is missing, and names it.
    pub(crate) fn ensure_possible() -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "mounting a file system needs root");
        let folder = tempfile::tempdir()?;
        Self::mount(folder.path().join("check"), folder.path()).map(drop)
    }

    /// Mounts an empty file system at `at`, with the owner of `like`.
    pub(crate) fn mount(at: PathBuf, like: &Path) -> Result<Self> {
        fs::create_dir_all(&at)?;
        run("mount", &["-t", "tmpfs", "-o", SIZE, "tmpfs"], &at)?;
        let disk = Self(at);
        let owner = fs::metadata(like)?;
        chown(&disk.0, Some(owner.uid()), Some(owner.gid()))?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no free space.
    pub(crate) fn fill(&self) -> Result<()> {
        let used = rustix::fs::statvfs(&self.0)?;
        let bytes = (used.f_blocks - used.f_bfree) * used.f_frsize;
        run("mount", &["-o", &format!("remount,size={bytes}")], &self.0)
    }

    /// Gives the space back.
    pub(crate) fn empty(&self) -> Result<()> {
        run("mount", &["-o", &format!("remount,{SIZE}")], &self.0)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Open files keep a file system busy; it is then unmounted once they are closed.
        run("umount", &["--lazy"], &self.0).ok();
        fs::remove_dir(&self.0).ok();
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) -> Result<()> {
    let path = installed(program).with_context(|| format!("{program} is not installed"))?;
    let output = Command::new(path).args(arguments).arg(at).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
