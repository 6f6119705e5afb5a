//! Starts real processes - Redis servers, whole clusters, coordinators, nodes, nginx - and breaks them.
//!
//! The tests of every crate and `cargo xtask up` stand on it, so that what is tested is what a person starts.
//! It knows how processes live and die and what their contracts are (settings, ports, HTTP answers); it does not
//! know how any of them works inside and depends on no other crate of the workspace.
//!
//! Invariant: whoever started an attached process outlives it. An owner that goes out of scope, panics or is killed
//! takes its processes along; only what was started with [`Lifetime::Detached`] and then released stays.
//!
//! Errors are `anyhow` ones, unlike in the other libraries: a person reads them, nothing matches on them.

pub mod binary;
pub mod buyers;
mod folder;
pub mod monitoring;
mod network_namespace;
pub mod nginx;
mod open_loop;
pub mod ports;
pub mod process;
pub mod procfs;
mod redis_cluster;
mod redis_server;
pub mod security;
mod server_clock;
pub mod stack;
mod wait;

pub use binary::{BuildProfile, binary};
pub use buyers::{BuyerAnswer, Buyers, PurchaseAttempt};
pub use folder::Folder;
pub use monitoring::Monitoring;
pub use network_namespace::NetworkNamespace;
pub use nginx::Nginx;
pub use open_loop::{BuyerResult, OpenLoop};
pub use process::{Launch, Lifetime, Process};
pub use redis_cluster::{
    ClusterOptions, ClusterPorts, CommandStats, Failover, RedisCluster, ServerRole, ServerView,
};
pub use redis_server::{RedisServer, ServerBinary};
pub use security::{Security, User};
pub use server_clock::ensure_clocks_can_be_set;
pub use stack::{Stack, StackOptions};
pub use wait::until;

use std::path::{Path, PathBuf};

/// The root folder of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is a folder of the workspace")
        .to_owned()
}
