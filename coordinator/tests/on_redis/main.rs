//! Sales under one or several coordinators, on a real Redis Cluster.
//!
//! The tests run `redis-server`, or the program that `REDIS_SERVER` names. They share one cluster and use a sale each;
//! tests that break something start a cluster of their own.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

mod changes;
mod creation;
mod durable_records;
mod fixture;
mod leading;
mod libraries;
mod live;
mod operators;
mod program;
mod rebalancing;
mod repairs;
mod replication;
mod resting;
