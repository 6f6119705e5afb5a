//! Tests of the functions and of the calls to them, on a real Redis Cluster.
//!
//! The server is `redis-server`, or the program in `REDIS_SERVER`. Tests that do not damage their cluster share one,
//! and each has its own sale. All other tests start a cluster of their own.

#![expect(clippy::unwrap_used, reason = "a test whose fixture fails has failed")]

mod against_reference;
mod audit;
mod barriers;
mod buy;
mod configure;
mod faults;
mod find_and_level;
mod fixture;
mod import;
mod lease;
mod library;
mod limits;
mod migration;
mod places;
mod presence;
mod record;
mod reference;
mod slow_disk;
mod transfer;
