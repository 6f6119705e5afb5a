#![doc = include_str!("../README.md")]

mod call;
mod cluster;
mod connection;
mod slot;
mod topology;

pub use call::{Call, CallError};
pub use cluster::{Cluster, ClusterError, Library, backoff};
pub use connection::{
    Barrier, ConnectError, ConnectOptions, Connection, PipelineTime, ReplicationInfo, Replies, TimedPipeline,
};
pub use slot::{SLOTS, Slot, slot_of_tag};
pub use topology::{Address, Line, Primary, Replica, Topology};

/// Milliseconds since the Unix epoch.
pub type EpochMs = u64;
