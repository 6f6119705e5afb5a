//! Whole sales on real processes: Redis Cluster, coordinator, nodes and nginx.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

mod clients;
mod clocks;
mod consecutive_faults;
mod coordinators;
mod crowd;
mod degraded;
mod disks;
mod durability;
mod failover;
mod faults;
mod fixture;
mod idle_connections;
mod late_calls;
mod lifecycle;
mod moving_slots;
mod overload;
mod purchase_path;
mod rebalance;
mod releases;
mod rolling;
mod secured;
mod slow_network;
