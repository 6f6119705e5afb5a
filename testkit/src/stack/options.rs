//! Options of a stack. The defaults are those of `cargo xtask up`.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

use super::{PortPlan, Programs};
use crate::{Lifetime, ServerBinary};

/// The processes of a stack and its default sale. Defaults are in parentheses.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Number of nodes behind nginx (2).
    pub nodes: u16,
    /// Number of coordinators (1).
    pub coordinators: u16,
    /// Number of ledgers (0). With one or more, PostgreSQL is started, too.
    pub ledgers: u16,
    /// A consumer of orders, as of `ledger/examples`. With it, RabbitMQ is started and the ledgers deliver to it (none).
    pub consumer: Option<PathBuf>,
    /// Number of primaries in the Redis Cluster (3).
    pub primaries: u16,
    /// Number of replicas per primary (1).
    pub replicas_per_primary: u16,
    /// The Redis program (the one that [`ServerBinary::find`] returns).
    pub redis_server: Option<ServerBinary>,
    /// The programs to start (those of this workspace, built with the profile of the running program).
    pub programs: Option<Programs>,
    /// Fixed ports (free ones).
    pub ports: Option<PortPlan>,
    /// A folder for logs and data, which is emptied first (a temporary one).
    pub folder: Option<PathBuf>,
    /// Defines if the processes may outlive their owner (attached).
    pub lifetime: Lifetime,
    /// Runs one Redis server in a [`NetworkNamespace`](crate::NetworkNamespace), so that it can be disconnected
    /// (false).
    pub network_namespace: bool,
    /// Uses the deployed users and, when the server program supports it, TLS (false).
    pub secured: bool,
    /// Gives each Redis server a clock that can be set; see
    /// [`RedisCluster::set_clock`](crate::RedisCluster::set_clock) (false).
    pub clocks: bool,
    /// Starts Prometheus with the stack (false).
    pub observed: bool,
    /// The default sale.
    pub sale: SaleOptions,
    /// Additional environment variables of every node.
    pub node_environment: Vec<(String, String)>,
    /// Additional environment variables of every coordinator.
    pub coordinator_environment: Vec<(String, String)>,
    /// Additional environment variables of every ledger.
    pub ledger_environment: Vec<(String, String)>,
}

/// The default sale of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaleOptions {
    /// The id of the sale (`flash`).
    pub id: String,
    /// Number of units to sell (1000).
    pub total_stock: u64,
    /// Number of shards (the coordinator's default).
    pub shards: Option<u32>,
    /// Time from the start of the stack's first coordinator to the opening of the sale (0).
    pub starts_in: Duration,
    /// Time that the sale is open (1 h).
    pub duration: Duration,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            coordinators: 1,
            ledgers: 0,
            consumer: None,
            primaries: 3,
            replicas_per_primary: 1,
            redis_server: None,
            programs: None,
            ports: None,
            folder: None,
            lifetime: Lifetime::Attached,
            network_namespace: false,
            secured: false,
            clocks: false,
            observed: false,
            sale: SaleOptions::default(),
            node_environment: Vec::new(),
            coordinator_environment: Vec::new(),
            ledger_environment: Vec::new(),
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
    /// Checks that the ports of a stack with these options are free.
    ///
    /// # Errors
    /// Fails when a port is taken. The message names the first such port, its purpose and the process that holds it.
    pub fn ensure_ports_are_free(&self, ports: PortPlan) -> Result<()> {
        ports.ensure_free(self)
    }

    pub(super) fn redis_servers(&self) -> u16 {
        self.primaries * (1 + self.replicas_per_primary)
    }
}
