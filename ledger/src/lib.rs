#![doc = include_str!("../README.md")]

pub mod api;
pub mod audit;
pub mod database;
pub mod drain;
mod event;
mod export;
pub mod feed;
pub mod ledger;
pub mod metrics;
pub mod migrate;
pub mod orders;
pub mod restore;
mod sales;
pub mod settings;
mod shard_reader;
mod writer;
