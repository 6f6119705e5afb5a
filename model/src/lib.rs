#![doc = include_str!("../README.md")]

pub mod actions;
pub mod contents;
mod display;
pub mod drain;
pub mod properties;
pub mod protocol;
pub mod records;
pub mod recovery;
pub mod sale;
pub mod shard;
pub mod state;
mod steps;
mod symmetry;
