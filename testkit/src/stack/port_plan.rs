//! Where everything of one stack listens, derived from its first port: the one place that says so.

use anyhow::Result;

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
const REDIS_BUS: u16 = 65;

/// The ports of a stack; with 8080 as the first: nginx 8080, nodes 8081…, coordinators 8090…, Prometheus 8098 and its
/// exporter for Redis 8099, the nodes' second ports 8100…, Redis 8110… and its bus 8145….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlan {
    first: u16,
}

impl PortPlan {
    /// As many nodes as there are ports for.
    pub const NODES_MAX: u16 = COORDINATORS - NODES;
    /// As many coordinators as there are ports for.
    pub const COORDINATORS_MAX: u16 = PROMETHEUS - COORDINATORS;
    /// As many Redis servers as there are ports for.
    pub const REDIS_MAX: u16 = REDIS_BUS - REDIS;
    /// The highest first port whose last port is still a port.
    pub const FIRST_MAX: u16 = u16::MAX - BLOCK_PORTS;

    /// The plan that starts at this port.
    pub fn starting_at(first: u16) -> Self {
        Self { first }
    }

    /// nginx.
    pub fn public(self) -> u16 {
        self.first
    }

    /// A node's public port.
    pub fn node(self, number: u16) -> u16 {
        self.first + NODES + number
    }

    /// A node's second port: health, readiness, metrics.
    pub fn node_ops(self, number: u16) -> u16 {
        self.first + NODE_OPS + number
    }

    /// A coordinator's only port.
    pub fn coordinator(self, number: u16) -> u16 {
        self.first + COORDINATORS + number
    }

    /// Prometheus.
    pub fn prometheus(self) -> u16 {
        self.first + PROMETHEUS
    }

    /// What Prometheus asks for the figures of Redis.
    pub fn redis_exporter(self) -> u16 {
        self.first + REDIS_EXPORTER
    }

    /// The Redis Cluster's ports.
    pub fn redis(self) -> ClusterPorts {
        ClusterPorts { clients: self.first + REDIS, bus: self.first + REDIS_BUS }
    }

    /// Checks, before anything is started, that every port a stack of this size takes is free.
    ///
    /// # Errors
    /// Names the first taken one, what it was meant for and who holds it.
    pub fn ensure_free(
        self,
        nodes: u16,
        coordinators: u16,
        redis_servers: u16,
        observed: bool,
    ) -> Result<()> {
        ensure_free(self.public(), "nginx")?;
        if observed {
            ensure_free(self.prometheus(), "Prometheus")?;
            ensure_free(self.redis_exporter(), "the Redis exporter")?;
        }
        for number in 0..nodes {
            ensure_free(self.node(number), &format!("node {}", number + 1))?;
            ensure_free(self.node_ops(number), &format!("node {}, second port", number + 1))?;
        }
        for number in 0..coordinators {
            ensure_free(self.coordinator(number), &format!("coordinator {}", number + 1))?;
        }
        for number in 0..redis_servers {
            ensure_free(self.redis().clients + number, &format!("Redis {}", number + 1))?;
            ensure_free(self.redis().bus + number, &format!("Redis {}, cluster bus", number + 1))?;
        }
        Ok(())
    }
}
