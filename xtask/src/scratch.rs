//! Temporary folder for tests, in memory where the machine has room.
//!
//! Every purchase waits for an fsync. On a shared disk a single fsync can take longer than the deadlines under test,
//! and a test would fail because of the disk. Killed processes still find their files in memory. Only a power failure
//! would lose them, and no test simulates that.

use std::{fs, io, path::Path, process::Command};

use rustix::fs::statvfs;
use tempfile::TempDir;

/// Linux's file system in memory. In a container it may be small.
const SHARED_MEMORY: &str = "/dev/shm";
/// Many times the space that all tests use at once.
const BYTES_FREE_MIN: u64 = 2 << 30;

/// A folder that is removed on drop, unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch(Option<TempDir>);

impl Scratch {
    /// Creates a folder in memory. Where memory has no room, tests use the default temporary folder.
    pub(crate) fn make() -> io::Result<Self> {
        has_room(Path::new(SHARED_MEMORY))
            .then(|| TempDir::with_prefix_in("flashsale-tests-", SHARED_MEMORY))
            .transpose()
            .map(Self)
    }

    /// Makes a command, and all processes that it starts, put temporary files into this folder.
    pub(crate) fn set_tmpdir(&self, command: &mut Command) {
        command.envs(self.0.iter().map(|folder| ("TMPDIR", folder.path())));
    }

    /// Keeps the folder, so that the logs of a failed test can be read.
    pub(crate) fn keep(self) {
        let Some(folder) = self.0 else { return };
        if fs::read_dir(folder.path()).is_ok_and(|mut entries| entries.next().is_some()) {
            say!(
                "what the tests left is in {}; it takes memory until it is removed",
                folder.keep().display()
            );
        }
    }
}

fn has_room(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|found| found.f_bavail * found.f_frsize >= BYTES_FREE_MIN)
}
