//! What the functions decide, and what a call goes through on its way: on a real Redis Cluster.
//!
//! The program is `redis-server`, or what `REDIS_SERVER` names. Tests that do no harm to it share one cluster and
//! have a sale each; those that break something have a cluster of their own.

#![expect(clippy::unwrap_used, reason = "a story whose stage cannot be set has failed")]

mod against_reference;
mod audit;
mod barriers;
mod buy;
mod configure;
mod faults;
mod find_and_level;
mod lease;
mod library;
mod limits;
mod migration;
mod presence;
mod record;
mod reference;
mod stage;
mod transfer;
