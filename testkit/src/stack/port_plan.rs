//! The ports of a stack, all derived from the first one. Ports are assigned nowhere else.

use anyhow::Result;

use super::StackOptions;
use crate::{
    ports::{BLOCK_PORTS, ensure_free},
    redis_cluster::ClusterPorts,
};

const NODES: u16 = 1;
const COORDINATORS: u16 = 10;
const PROMETHEUS: u16 = 18;
const REDIS_EXPORTER: u16 = 19;
const NODE_OPS: u16 = 20;
const REDIS: u16 = 30;
const REDIS_BUS: u16 = 60;
const LEDGERS: u16 = 90;
const POSTGRES: u16 = 95;
const RABBITMQ: u16 = 96;

/// The ports of a stack. When the first is 8080: nginx 8080, nodes 8081…, coordinators 8090…, Prometheus 8098, the
/// Redis exporter 8099, the nodes' operations ports 8100…, Redis 8110… and its bus 8140…, ledgers 8170…,
/// PostgreSQL 8175, RabbitMQ 8176….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlan {
    first: u16,
}

impl PortPlan {
    /// The number of nodes that have ports.
    pub const NODES_MAX: u16 = COORDINATORS - NODES;
    /// The number of coordinators that have ports.
    pub const COORDINATORS_MAX: u16 = PROMETHEUS - COORDINATORS;
    /// The number of Redis servers that have ports.
    pub const REDIS_MAX: u16 = REDIS_BUS - REDIS;
    /// The number of ledgers that have ports.
    pub const LEDGERS_MAX: u16 = POSTGRES - LEDGERS;
    /// The highest first port for which all ports of the plan are valid.
    pub const FIRST_MAX: u16 = u16::MAX - BLOCK_PORTS;

    /// Creates the plan with this first port.
    pub fn starting_at(first: u16) -> Self {
        Self { first }
    }

    /// The port of nginx.
    pub fn public(self) -> u16 {
        self.first
    }

    /// The port of a node for buyers.
    pub fn node(self, number: u16) -> u16 {
        self.first + NODES + number
    }

    /// The operations port of a node: health, readiness, metrics.
    pub fn node_ops(self, number: u16) -> u16 {
        self.first + NODE_OPS + number
    }

    /// The only port of a coordinator.
    pub fn coordinator(self, number: u16) -> u16 {
        self.first + COORDINATORS + number
    }

    /// The port of Prometheus.
    pub fn prometheus(self) -> u16 {
        self.first + PROMETHEUS
    }

    /// The port of the Redis exporter.
    pub fn redis_exporter(self) -> u16 {
        self.first + REDIS_EXPORTER
    }

    /// The ports of the Redis Cluster.
    pub fn redis(self) -> ClusterPorts {
        ClusterPorts { clients: self.first + REDIS, bus: self.first + REDIS_BUS }
    }

    /// The only port of a ledger.
    pub fn ledger(self, number: u16) -> u16 {
        self.first + LEDGERS + number
    }

    /// The port of PostgreSQL.
    pub fn postgres(self) -> u16 {
        self.first + POSTGRES
    }

    /// The first of the three ports of RabbitMQ.
    pub fn rabbitmq(self) -> u16 {
        self.first + RABBITMQ
    }

    /// Checks that every port of a stack with these options is free.
    ///
    /// # Errors
    /// Fails when a port is taken. The message names the first such port, its purpose and the process that holds it.
    pub(super) fn ensure_free(self, options: &StackOptions) -> Result<()> {
        ensure_free(self.public(), "nginx")?;
        if options.observed {
            ensure_free(self.prometheus(), "Prometheus")?;
            ensure_free(self.redis_exporter(), "the Redis exporter")?;
        }
        for number in 0..options.nodes {
            ensure_free(self.node(number), &format!("node {}", number + 1))?;
            ensure_free(self.node_ops(number), &format!("node {}, second port", number + 1))?;
        }
        for number in 0..options.coordinators {
            ensure_free(self.coordinator(number), &format!("coordinator {}", number + 1))?;
        }
        for number in 0..options.ledgers {
            ensure_free(self.ledger(number), &format!("ledger {}", number + 1))?;
        }
        if options.ledgers > 0 {
            ensure_free(self.postgres(), "PostgreSQL")?;
        }
        if options.consumer.is_some() {
            for number in 0..3 {
                ensure_free(self.rabbitmq() + number, "RabbitMQ")?;
            }
        }
        for number in 0..options.redis_servers() {
            ensure_free(self.redis().clients + number, &format!("Redis {}", number + 1))?;
            ensure_free(self.redis().bus + number, &format!("Redis {}, cluster bus", number + 1))?;
        }
        Ok(())
    }
}
