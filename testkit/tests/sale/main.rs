//! Whole sales on real processes: Redis Cluster, coordinator, nodes and nginx.

#![expect(clippy::unwrap_used, reason = "what a story cannot go on without fails it")]

mod actors;
mod alone;
mod clients;
mod clocks;
mod coordinators;
mod crowd;
mod disks;
mod durability;
mod failover;
mod faults;
mod lifecycle;
mod moving_slots;
mod overload;
mod path;
mod rebalance;
mod rolling;
mod secured;
mod successors;
