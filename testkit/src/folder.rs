//! The private folder of whatever is started: logs, data, configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;

/// A folder for the files of started processes.
#[derive(Debug)]
pub enum Folder {
    /// Removed with its owner, unless that one panics: then the logs are what one wants to read.
    Temporary(Option<TempDir>),
    /// Stays.
    Kept(PathBuf),
}

impl Folder {
    /// A fresh folder that goes with its owner.
    ///
    /// # Errors
    /// When the temp folder cannot be written.
    pub fn temporary() -> io::Result<Self> {
        Ok(Self::Temporary(Some(TempDir::with_prefix("flashsale-")?)))
    }

    /// An empty folder at this place; what was there before is removed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn emptied(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self::Kept(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.as_ref().expect("taken only in drop").path(),
            Self::Kept(path) => path,
        }
    }

    /// Makes a folder inside.
    ///
    /// # Errors
    /// When it cannot be written.
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
            eprintln!("logs are kept in {}", folder.keep().display());
        }
    }
}
