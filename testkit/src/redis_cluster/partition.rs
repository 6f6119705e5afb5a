//! The server that can be cut off from all others.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::RedisCluster;
use crate::NetworkNamespace;

impl RedisCluster {
    /// The server on the island, if there is one.
    pub fn islander(&self) -> Option<SocketAddr> {
        let island = self.island.as_ref()?;
        self.all().iter().map(|server| server.addr()).find(|addr| addr.ip() == island.address())
    }

    /// Cuts the islander off: from the other servers and from every client.
    ///
    /// # Errors
    /// When there is none.
    pub fn cut_off_the_islander(&self) -> Result<()> {
        self.the_island()?.cut_off()
    }

    /// Joins the islander to the others again.
    ///
    /// # Errors
    /// When there is none.
    pub fn reconnect_the_islander(&self) -> Result<()> {
        self.the_island()?.reconnect()
    }

    fn the_island(&self) -> Result<&NetworkNamespace> {
        self.island.as_ref().context("this cluster was started without an island")
    }
}
