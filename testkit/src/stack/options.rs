//! What can be chosen about a stack; the defaults are what `cargo xtask up` starts.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

use super::{PortPlan, Programs};
use crate::{Lifetime, ServerBinary};

/// What a stack is made of, and the sale it opens.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Nodes behind nginx (2).
    pub nodes: u16,
    /// Coordinators (1).
    pub coordinators: u16,
    /// Primaries of the Redis Cluster (3).
    pub primaries: u16,
    /// Replicas of each primary (1).
    pub replicas_per_primary: u16,
    /// The Redis program; what [`ServerBinary::find`] finds if none is given.
    pub redis_server: Option<ServerBinary>,
    /// The programs to start; those of this workspace, built like the running program, if none are given.
    pub programs: Option<Programs>,
    /// Fixed ports; free ones if none are given.
    pub ports: Option<PortPlan>,
    /// A folder to empty and use; one that goes with the stack if none is given.
    pub folder: Option<PathBuf>,
    /// Whether the processes may outlive us.
    pub lifetime: Lifetime,
    /// Whether one Redis server runs on an [`NetworkNamespace`](crate::Island), so that it can be cut off (no).
    pub island: bool,
    /// Whether Redis asks everybody who they are, and speaks TLS where the program can (no).
    pub secured: bool,
    /// Whether each Redis server has a clock of its own that can be set; see
    /// [`RedisCluster::set_clock`](crate::RedisCluster::set_clock) (no).
    pub clocks: bool,
    /// Whether Prometheus watches it (no).
    pub observed: bool,
    /// The default sale.
    pub sale: SaleOptions,
    /// Further variables for every node.
    pub node_environment: Vec<(String, String)>,
    /// Further variables for every coordinator.
    pub coordinator_environment: Vec<(String, String)>,
}

/// The default sale of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaleOptions {
    /// Its id (`flash`).
    pub id: String,
    /// Units to sell (1000).
    pub total_stock: u64,
    /// How many shards; the coordinator's default if none is given.
    pub shards: Option<u32>,
    /// How long after the start of the stack's first coordinator it opens (at once).
    pub starts_in: Duration,
    /// How long it is open (an hour).
    pub duration: Duration,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            coordinators: 1,
            primaries: 3,
            replicas_per_primary: 1,
            redis_server: None,
            programs: None,
            ports: None,
            folder: None,
            lifetime: Lifetime::Attached,
            island: false,
            secured: false,
            clocks: false,
            observed: false,
            sale: SaleOptions::default(),
            node_environment: Vec::new(),
            coordinator_environment: Vec::new(),
        }
    }
}

impl Default for SaleOptions {
    fn default() -> Self {
        Self {
            id: "flash".into(),
            total_stock: 1000,
            shards: None,
            starts_in: Duration::ZERO,
            duration: Duration::from_hours(1),
        }
    }
}

impl StackOptions {
    /// Checks that the ports of such a stack can be had.
    ///
    /// # Errors
    /// Names the first taken one, what it was meant for and who holds it.
    pub fn ensure_ports_are_free(&self, ports: PortPlan) -> Result<()> {
        ports.ensure_free(self.nodes, self.coordinators, self.redis_servers(), self.observed)
    }

    pub(super) fn redis_servers(&self) -> u16 {
        self.primaries * (1 + self.replicas_per_primary)
    }
}
