#![doc = include_str!("../README.md")]

pub mod actions;
pub mod calm;
pub mod contents;
pub mod properties;
pub mod protocol;
pub mod records;
pub mod sale;
pub mod shard;
pub mod state;
mod steps;
mod story;
mod symmetry;
