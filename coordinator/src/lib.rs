#![doc = include_str!("../README.md")]

pub mod admin;
pub mod carry_out;
pub mod change;
pub mod channels;
pub mod coordinator;
pub mod demand;
pub mod desired;
pub mod leading;
pub mod live;
pub mod metrics;
pub mod new_sale;
pub mod plan;
pub mod rebalance;
mod rebalancing;
pub mod records;
pub mod replication;
pub mod rounds;
pub mod settings;
pub mod start;
pub mod tenure;
pub mod transfers;
pub mod trouble;
pub mod violations;

pub(crate) use service::news;

#[cfg(test)]
mod testing;
