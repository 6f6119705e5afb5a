//! Options of a cluster.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    Folder, Lifetime, NetworkNamespace, ServerBinary,
    ports::{BLOCK_PORTS, PortBlock, ensure_free},
};

/// The size, programs and features of a cluster. Defaults are in parentheses.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Number of primaries. At least 3, because fewer have no majority to replace one (3).
    pub primaries: u16,
    /// Number of replicas per primary (1).
    pub replicas_per_primary: u16,
    /// The server program (the one that [`ServerBinary::find`] returns).
    pub binary: Option<ServerBinary>,
    /// Ports for clients and for the cluster bus (free ones).
    pub ports: Option<ClusterPorts>,
    /// A folder for data and logs, which is emptied first (a temporary one).
    pub folder: Option<PathBuf>,
    /// Replaces `cluster-node-timeout` of `redis.conf` (not replaced).
    pub node_timeout: Option<Duration>,
    /// Defines if the servers may outlive their owner (attached).
    pub lifetime: Lifetime,
    /// Runs the last server in a [`NetworkNamespace`], so that it can be disconnected (false).
    pub network_namespace: bool,
    /// Uses the deployed users and, when the server program supports it, TLS (false).
    pub secured: bool,
    /// Gives each server a clock that can be set; see [`RedisCluster::set_clock`](crate::RedisCluster::set_clock)
    /// (false).
    pub clocks: bool,
}

/// The first ports of a cluster. Server number i uses `clients + i` and `bus + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterPorts {
    /// The first port for clients.
    pub clients: u16,
    /// The first port of the cluster bus.
    pub bus: u16,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            primaries: 3,
            replicas_per_primary: 1,
            binary: None,
            ports: None,
            folder: None,
            node_timeout: None,
            lifetime: Lifetime::Attached,
            network_namespace: false,
            secured: false,
            clocks: false,
        }
    }
}

impl ClusterOptions {
    pub(super) fn servers(&self) -> u16 {
        self.primaries * (1 + self.replicas_per_primary)
    }

    /// Checks fixed ports before the start: this error names the process in the way, while a server's log does not.
    pub(super) fn choose_ports(&self) -> Result<(ClusterPorts, Option<PortBlock>)> {
        match self.ports {
            Some(ports) => self.ensure_free(ports).map(|()| (ports, None)),
            None => self.take_free_ports().map(|(ports, held)| (ports, Some(held))),
        }
    }

    pub(super) fn choose_folder(&self) -> Result<Folder> {
        Ok(self.folder.as_ref().map_or_else(Folder::temporary, Folder::emptied)?)
    }

    pub(super) fn create_network_namespace(&self, ports: ClusterPorts) -> Result<Option<NetworkNamespace>> {
        self.network_namespace.then(|| NetworkNamespace::create(ports.clients)).transpose()
    }

    /// Returns the arguments that the cluster adds to each server's command line.
    pub(super) fn settings(&self, bus_port: u16) -> Vec<String> {
        let mut settings = vec!["--cluster-port".to_owned(), bus_port.to_string()];
        if let Some(timeout) = self.node_timeout {
            settings.extend(["--cluster-node-timeout".to_owned(), timeout.as_millis().to_string()]);
        }
        settings
    }

    fn ensure_free(&self, ports: ClusterPorts) -> Result<()> {
        (0..self.servers()).try_for_each(|i| {
            ensure_free(ports.clients + i, "Redis")?;
            ensure_free(ports.bus + i, "Redis cluster bus")
        })
    }

    fn take_free_ports(&self) -> Result<(ClusterPorts, PortBlock)> {
        const SERVERS_MAX: u16 = BLOCK_PORTS / 2;
        ensure!(self.servers() <= SERVERS_MAX, "test ports suffice for at most {SERVERS_MAX} servers");
        let block = PortBlock::take()?;
        Ok((ClusterPorts { clients: block.first(), bus: block.first() + SERVERS_MAX }, block))
    }
}
