#![doc = include_str!("../README.md")]

pub mod csrf;
pub mod http;
pub mod identity;
pub mod lanes;
pub mod limits;
pub mod metrics;
pub mod router;
pub mod sales;
pub mod secret;
pub mod settings;
