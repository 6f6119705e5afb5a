//! A server that is down loses the end of its append-only file.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::RedisCluster;

impl RedisCluster {
    /// Cuts so many bytes off the end of a stopped server's append-only file.
    ///
    /// # Errors
    /// When the file cannot be found or cut, or is not that long.
    pub fn cut_append_only_file(&self, addr: SocketAddr, bytes: u64) -> Result<()> {
        let file = File::options().write(true).open(self.append_only_file(addr)?)?;
        let length = file.metadata()?.len();
        ensure!(length > bytes, "the append-only file of {addr} has {length} bytes");
        Ok(file.set_len(length - bytes)?)
    }

    /// Starts a server that is down over the data it left. It may not answer yet, and may never.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn start_server(&self, addr: SocketAddr) -> Result<()> {
        self.server(addr).restart()
    }

    /// Whether the process of a server runs.
    pub fn is_running(&self, addr: SocketAddr) -> bool {
        self.server(addr).process().is_running()
    }

    /// The last file that the server has appended to.
    fn append_only_file(&self, addr: SocketAddr) -> Result<PathBuf> {
        let folder = self.folder.path().join(format!("redis-{}", addr.port())).join("appendonlydir");
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let appended = files.into_iter().filter(|file| file.to_string_lossy().ends_with(".incr.aof"));
        appended.max_by_key(|file| sequence_number(file)).context("the server has appended to no file")
    }
}

/// Reads `appendonly.aof.12.incr.aof`.
fn sequence_number(file: &Path) -> Option<u64> {
    file.file_name()?.to_str()?.rsplit('.').nth(2)?.parse().ok()
}
