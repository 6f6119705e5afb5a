#![doc = include_str!("../README.md")]

pub mod database;
pub mod drain;
mod event;
pub mod ledger;
pub mod metrics;
pub mod migrate;
mod sales;
pub mod settings;
mod shard_reader;
mod writer;
