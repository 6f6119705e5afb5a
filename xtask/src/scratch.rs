//! Where tests keep what they throw away: in memory, where the machine has room for it.
//!
//! Every purchase waits for an fsync. On a disk that others use, too, one may take longer than all the deadlines that
//! tests are about, and a test would be red for what the disk did. Processes that are killed find their files again
//! here as well; only a machine that loses its power would not, and no test does that.

use std::{fs, io, path::Path, process::Command};

use rustix::fs::statvfs;
use tempfile::TempDir;

/// Linux has a file system in memory there; in a container it may be a small one.
const MEMORY: &str = "/dev/shm";
/// Many times what all tests leave at once.
const BYTES_FREE_MIN: u64 = 2 << 30;

/// A folder that is removed with this, unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch(Option<TempDir>);

impl Scratch {
    /// A folder in memory; where that has no room, the tests use the usual one.
    pub(crate) fn make() -> io::Result<Self> {
        has_room(Path::new(MEMORY))
            .then(|| TempDir::with_prefix_in("flashsale-tests-", MEMORY))
            .transpose()
            .map(Self)
    }

    /// Has a command, and all that it starts, keep there what is temporary.
    pub(crate) fn lend_to(&self, command: &mut Command) {
        command.envs(self.0.iter().map(|folder| ("TMPDIR", folder.path())));
    }

    /// Leaves what is in it, for somebody to read: the logs of what failed.
    pub(crate) fn keep(self) {
        let Some(folder) = self.0 else { return };
        if fs::read_dir(folder.path()).is_ok_and(|mut entries| entries.next().is_some()) {
            println!(
                "what the tests left is in {}; it takes memory until it is removed",
                folder.keep().display()
            );
        }
    }
}

fn has_room(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|found| found.f_bavail * found.f_frsize >= BYTES_FREE_MIN)
}
