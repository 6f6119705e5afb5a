//! The private folder of a group of started processes: logs, data, configuration.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;

/// A folder for the files of started processes.
#[derive(Debug)]
pub enum Folder {
    /// Removed when the owner is dropped. Kept when the owner panics, because the logs explain the failure.
    Temporary(Option<TempDir>),
    /// Kept after the owner is dropped.
    Kept(PathBuf),
}

impl Folder {
    /// Creates a new temporary folder that is removed with its owner.
    ///
    /// # Errors
    /// Fails when the system's temporary folder is not writable.
    pub fn temporary() -> io::Result<Self> {
        Ok(Self::Temporary(Some(TempDir::with_prefix("flashsale-")?)))
    }

    /// Creates an empty folder at `path` and removes its previous content.
    ///
    /// # Errors
    /// Fails when the folder cannot be removed or created.
    pub fn emptied(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self::Kept(path))
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.as_ref().expect("taken only in drop").path(),
            Self::Kept(path) => path,
        }
    }

    /// Creates a subfolder and returns its path.
    ///
    /// # Errors
    /// Fails when the subfolder cannot be created.
    pub fn subfolder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Self::Temporary(folder) = self
            && thread::panicking()
            && let Some(folder) = folder.take()
        {
            writeln!(io::stderr(), "logs are kept in {}", folder.keep().display()).ok();
        }
    }
}
