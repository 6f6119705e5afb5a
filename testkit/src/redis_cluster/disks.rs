//! Deletes the data of servers. They keep their place in the cluster.

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::RedisCluster;

/// The file in which a server stores its view of the cluster.
const CLUSTER_FILE: &str = "nodes.conf";

impl RedisCluster {
    /// Kills these servers at once, deletes their data, and starts them again: empty, with the same slots.
    ///
    /// # Errors
    /// Fails when a file cannot be deleted, or a server does not start.
    pub async fn lose_data(&self, addrs: &[SocketAddr]) -> Result<()> {
        addrs.iter().for_each(|&addr| self.kill(addr));
        addrs.iter().try_for_each(|&addr| self.delete_data(addr))?;
        try_join_all(addrs.iter().map(|&addr| self.restart(addr))).await.map(drop)
    }

    fn delete_data(&self, addr: SocketAddr) -> Result<()> {
        let data = self.folder().path().join(format!("redis-{}", addr.port()));
        for entry in fs::read_dir(&data).with_context(|| data.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if !path.ends_with(CLUSTER_FILE) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
