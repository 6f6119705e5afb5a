//! The clock of one server, which a test can set while the server runs. The preloaded libfaketime reads the offset
//! from a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use jiff::SignedDuration;

use crate::{Launch, binary::installed};

/// Path of the library below a library folder. This variant supports programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// Library folders. Each contains libraries, or one subfolder per architecture.
const LIBRARY_FOLDERS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

/// A clock that can be set, for one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerClock {
    library: PathBuf,
    file: PathBuf,
}

impl ServerClock {
    /// Creates a clock that shows the machine's time until it is set. Its file is named after the server.
    ///
    /// # Errors
    /// Fails when libfaketime is not installed.
    pub(crate) fn new(name: &str, folder: &Path) -> Result<Self> {
        let clock = Self { library: find_library()?, file: folder.join(format!("{name}.clock")) };
        clock.set(SignedDuration::ZERO)?;
        Ok(clock)
    }

    /// Makes a program use this clock. Its monotonic clock stays the machine's, as when an administrator sets the
    /// time.
    pub(crate) fn apply_to(&self, launch: Launch) -> Launch {
        // Debian's Redis allocates with jemalloc, which asks for the time before libfaketime can answer (libfaketime
        // issue 130). Preloading the C library makes allocations go there instead.
        launch
            .env("LD_PRELOAD", format!("{} libc.so.6", self.library.display()))
            .env("FAKETIME_TIMESTAMP_FILE", self.file.display())
            .env("FAKETIME_NO_CACHE", 1)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", 1)
    }

    /// Sets the clock `offset` ahead of the machine's clock, or behind it when `offset` is negative.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub(crate) fn set(&self, offset: SignedDuration) -> Result<()> {
        // The rename is atomic: a reader sees the old file or the new one.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{:+.3}\n", offset.as_secs_f64()))?;
        fs::rename(&next, &self.file).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Checks that server clocks can be set on this machine.
///
/// # Errors
/// Fails when a package is missing, and names it.
pub fn ensure_clocks_can_be_set() -> Result<()> {
    find_library().map(drop)
}

fn find_library() -> Result<PathBuf> {
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
