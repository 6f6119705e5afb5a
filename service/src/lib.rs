#![doc = include_str!("../README.md")]

pub mod connect;
pub mod correlation;
pub mod edge;
pub mod exit;
pub mod files;
pub mod json;
pub mod logs;
pub mod metrics;
pub mod ops;
pub mod places;
pub mod problem;
pub mod serve;
pub mod settings;
pub mod shutdown;
pub mod time;
pub mod traces;
