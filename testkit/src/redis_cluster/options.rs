//! What can be chosen about a cluster.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    Folder, Lifetime, NetworkNamespace, ServerBinary,
    ports::{BLOCK_PORTS, PortBlock, ensure_free},
};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many primaries share the slots; at least 3, or no majority could replace one (3).
    pub primaries: u16,
    /// How many replicas each primary has (1).
    pub replicas_per_primary: u16,
    /// The program; what [`ServerBinary::find`] finds if none is given.
    pub binary: Option<ServerBinary>,
    /// Ports of clients and, as many again, of the cluster's own bus; free ones if none are given.
    pub ports: Option<ClusterPorts>,
    /// An empty folder for data and logs; one that goes with the cluster if none is given.
    pub folder: Option<PathBuf>,
    /// Replaces `cluster-node-timeout` of `redis.conf`.
    pub node_timeout: Option<Duration>,
    /// Whether the servers may outlive us.
    pub lifetime: Lifetime,
    /// Whether the last server runs on an [`NetworkNamespace`], so that it can be cut off (no).
    pub island: bool,
    /// Whether it asks everybody who they are, and speaks TLS where the program can: by the files that are deployed (no).
    pub secured: bool,
    /// Whether each server has a clock of its own that can be set; see
    /// [`RedisCluster::set_clock`](crate::RedisCluster::set_clock) (no).
    pub clocks: bool,
}

/// Where a cluster's ports start: server number i takes `clients + i` and `bus + i`.
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
            island: false,
            secured: false,
            clocks: false,
        }
    }
}

impl ClusterOptions {
    pub(super) fn servers(&self) -> u16 {
        self.primaries * (1 + self.replicas_per_primary)
    }

    /// Fixed ports are checked first: an error that names who is in the way beats a server's log.
    pub(super) fn choose_ports(&self) -> Result<(ClusterPorts, Option<PortBlock>)> {
        match self.ports {
            Some(ports) => self.ensure_free(ports).map(|()| (ports, None)),
            None => self.take_free_ports().map(|(ports, held)| (ports, Some(held))),
        }
    }

    pub(super) fn choose_folder(&self) -> Result<Folder> {
        Ok(self.folder.as_ref().map_or_else(Folder::temporary, Folder::emptied)?)
    }

    pub(super) fn choose_island(&self, ports: ClusterPorts) -> Result<Option<NetworkNamespace>> {
        self.island.then(|| NetworkNamespace::make(ports.clients)).transpose()
    }

    /// What a server's command line says besides what every server's says.
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
        ensure!(self.servers() <= SERVERS_MAX, "there are test ports for {SERVERS_MAX} servers at most");
        let block = PortBlock::take()?;
        Ok((ClusterPorts { clients: block.first(), bus: block.first() + SERVERS_MAX }, block))
    }
}
