#![doc = include_str!("../README.md")]

pub mod http;
pub mod lanes;
pub mod metrics;
pub mod router;
mod sabotage;
pub mod sales;
pub mod settings;
