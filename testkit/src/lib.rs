//! Starts real processes (Redis servers, whole clusters, coordinators, nodes, nginx) and breaks them.
//!
//! The tests of every crate and `cargo xtask up` use this crate, so the tested setup is the one that a developer
//! starts. It knows how processes start and end and what their contracts are (settings, ports, HTTP answers). It does
//! not know how they work inside. Requests and answers are those of the crate [`buyers`].
//!
//! Invariant: an attached process never outlives its owner. When the owner goes out of scope, panics or is killed, its
//! processes end too. Only a process that was started with [`Lifetime::Detached`] and then released keeps running.
//!
//! Errors are `anyhow` errors, unlike in the other libraries: they are read at a terminal and never matched on.

pub mod binary;
mod crowd;
mod folder;
pub mod monitoring;
mod network_namespace;
pub mod nginx;
mod open_loop;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod procfs;
pub mod rabbitmq;
mod redis_cluster;
mod redis_server;
pub mod security;
mod server_clock;
pub mod stack;
mod unix_user;
mod wait;

pub use binary::{BuildProfile, binary};
pub use crowd::{BuyerAnswer, Buyers, PurchaseAttempt, tally};
pub use folder::Folder;
pub use monitoring::Monitoring;
pub use network_namespace::NetworkNamespace;
pub use nginx::Nginx;
pub use open_loop::{BuyerResult, OpenLoop};
pub use postgres::Postgres;
pub use process::{Launch, Lifetime, Process};
pub use rabbitmq::RabbitMq;
pub use redis_cluster::{
    ClusterOptions, ClusterPorts, CommandStats, Failover, RedisCluster, ServerRole, ServerView,
};
pub use redis_server::{RedisServer, ServerBinary};
pub use security::{Security, User};
pub use server_clock::ensure_clocks_can_be_set;
pub use stack::{Stack, StackOptions};
pub use wait::{until, until_ok};

use std::{
    env,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Returns the root folder of the workspace in which this program runs, not of the one in which it was compiled: a copied
/// checkout keeps its own build folder. Starts at the package that cargo runs, or at the current folder.
///
/// # Panics
/// When neither lies in the workspace.
pub fn workspace_root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let start = package.or_else(|| env::current_dir().ok()).unwrap_or_default();
        let is_root = |folder: &&Path| folder.join("Cargo.lock").is_file() && folder.join("testkit").is_dir();
        let root = start.ancestors().find(is_root).map(Path::to_owned);
        root.unwrap_or_else(|| {
            panic!("{} is not in the workspace of the flash sale; run this there", start.display())
        })
    });
    &ROOT
}
