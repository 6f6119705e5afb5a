#![doc = include_str!("../README.md")]

mod admin;
mod balance;
mod command;
mod facts;
mod health;
mod moves;
mod plan;
mod servers;
mod slots;
mod status;

pub use admin::{AdminError, ClusterAdmin};
pub use facts::Facts;
pub use health::ensure_healthy;
pub use plan::{Goal, Request};
pub use status::{ClusterStatus, GroupStatus};
