//! Truncates the append-only file of a stopped server.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::RedisCluster;

impl RedisCluster {
    /// Removes the last `bytes` bytes of a stopped server's append-only file.
    ///
    /// # Errors
    /// Fails when the file cannot be found or truncated, or is not longer than `bytes`.
    pub fn cut_append_only_file(&self, addr: SocketAddr, bytes: u64) -> Result<()> {
        let file = File::options().write(true).open(self.append_only_file(addr)?)?;
        let length = file.metadata()?.len();
        ensure!(length > bytes, "the append-only file of {addr} has {length} bytes");
        Ok(file.set_len(length - bytes)?)
    }

    /// Starts a stopped server with its data. Does not wait for an answer, which may never come.
    ///
    /// # Errors
    /// Fails when the program does not start.
    pub fn start_server(&self, addr: SocketAddr) -> Result<()> {
        self.server(addr).restart()
    }

    /// Returns true when the server's process runs.
    pub fn is_running(&self, addr: SocketAddr) -> bool {
        self.server(addr).process().is_running()
    }

    /// The file that the server appended to last.
    fn append_only_file(&self, addr: SocketAddr) -> Result<PathBuf> {
        let folder = self.folder.path().join(format!("redis-{}", addr.port())).join("appendonlydir");
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let appended = files.into_iter().filter(|file| file.to_string_lossy().ends_with(".incr.aof"));
        appended.max_by_key(|file| sequence_number(file)).context("the server has appended to no file")
    }
}

/// Parses the number in `appendonly.aof.12.incr.aof`.
fn sequence_number(file: &Path) -> Option<u64> {
    file.file_name()?.to_str()?.rsplit('.').nth(2)?.parse().ok()
}
