//! The clock of one server, which a test sets while the server runs: libfaketime, preloaded, reads the offset from a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use jiff::SignedDuration;

use crate::{Launch, binary::installed};

/// The library, below a folder of libraries; the variant for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// Folders that hold libraries, or one folder of them per architecture.
const LIBRARY_FOLDERS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

/// A clock that can be set.
#[derive(Clone, Debug)]
pub(crate) struct ServerClock {
    library: PathBuf,
    file: PathBuf,
}

impl ServerClock {
    /// A clock that shows the machine's time until it is set. Its file is named for the server.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub(crate) fn new(name: &str, folder: &Path) -> Result<Self> {
        let clock = Self { library: library()?, file: folder.join(format!("{name}.clock")) };
        clock.set(SignedDuration::ZERO)?;
        Ok(clock)
    }

    /// Has a program see this clock. Its monotonic clock stays the machine's, as on a machine whose time is set.
    pub(crate) fn launch(&self, launch: Launch) -> Launch {
        // Debian's Redis allocates by jemalloc, which asks for the time before libfaketime can answer (its issue 130).
        // With the C library named first, memory comes from there.
        launch
            .env("LD_PRELOAD", format!("{} libc.so.6", self.library.display()))
            .env("FAKETIME_TIMESTAMP_FILE", self.file.display())
            .env("FAKETIME_NO_CACHE", 1)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", 1)
    }

    /// Sets it: so far ahead of the machine's clock, or behind where `offset` is negative.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set(&self, offset: SignedDuration) -> Result<()> {
        // A reader sees the old file or the new one, never half of one.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{:+.3}\n", offset.as_secs_f64()))?;
        fs::rename(&next, &self.file).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Checks that clocks can be set on this machine.
///
/// # Errors
/// Names the package that is missing.
pub fn ensure_clocks_can_be_set() -> Result<()> {
    library().map(drop)
}

fn library() -> Result<PathBuf> {
    const MISSING: &str = "clocks are set by libfaketime, which is not installed (Debian package faketime)";
    installed("faketime").context(MISSING)?;
    let folders = LIBRARY_FOLDERS.iter().map(PathBuf::from);
    let with_subfolders = folders.flat_map(|folder| {
        let subfolders = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        [folder].into_iter().chain(subfolders).collect::<Vec<_>>()
    });
    let mut libraries = with_subfolders.map(|folder| folder.join(LIBRARY));
    libraries.find(|library| library.is_file()).context(MISSING)
}
