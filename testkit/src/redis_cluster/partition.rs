//! Disconnects one server from all others.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::RedisCluster;
use crate::NetworkNamespace;

impl RedisCluster {
    /// The server in the network namespace, or `None` when the cluster has no namespace.
    pub fn namespaced_server(&self) -> Option<SocketAddr> {
        let namespace = self.network_namespace.as_ref()?;
        self.all_servers().iter().map(|server| server.addr()).find(|addr| addr.ip() == namespace.address())
    }

    /// Disconnects that server from the other servers and from every client.
    ///
    /// # Errors
    /// Fails when the cluster has no namespace.
    pub fn disconnect_namespaced_server(&self) -> Result<()> {
        self.namespace()?.disconnect()
    }

    /// Connects that server to the others again.
    ///
    /// # Errors
    /// Fails when the cluster has no namespace.
    pub fn reconnect_namespaced_server(&self) -> Result<()> {
        self.namespace()?.reconnect()
    }

    fn namespace(&self) -> Result<&NetworkNamespace> {
        self.network_namespace.as_ref().context("this cluster was started without a network namespace")
    }
}
