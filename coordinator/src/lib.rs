#![doc = include_str!("../README.md")]

pub mod admin;
pub mod apply;
pub mod change;
pub mod cluster_command;
pub mod context;
pub mod coordinator;
pub mod demand;
pub mod desired_state;
mod leading;
pub mod lease_holder;
mod libraries;
pub mod live;
pub mod metrics;
pub mod new_sale;
pub mod observation;
mod observer;
pub mod operations;
pub mod plan;
pub mod rebalance;
mod rebalancer;
mod reconciler;
mod record_follower;
pub mod records;
pub mod replication;
mod rounds;
pub mod settings;
mod settlement;
pub mod shard_problem;
pub mod start;
pub mod timing;
pub mod transfers;
pub mod violations;

pub(crate) use service::failure_log;

#[cfg(test)]
mod testing;
