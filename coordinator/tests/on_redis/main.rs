//! What becomes of sales under one or several coordinators: on a real Redis Cluster.
//!
//! The program is `redis-server`, or what `REDIS_SERVER` names. Tests share one cluster and have a sale each; those
//! that break something have a cluster of their own.

#![expect(clippy::unwrap_used, reason = "a story whose stage cannot be set has failed")]

mod changes;
mod creation;
mod durable_records;
mod fixture;
mod leading;
mod live;
mod operators;
mod program;
mod rebalancing;
mod repairs;
mod replication;
