#![doc = include_str!("../README.md")]

mod client_stream;
pub mod connect;
pub mod correlation;
pub mod edge;
pub mod events;
pub mod exit;
pub mod failure_log;
pub mod files;
pub mod healthcheck;
pub mod https;
pub mod json;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod operators;
pub mod ops;
pub mod page;
pub mod presence;
pub mod problem;
pub mod serve;
pub mod settings;
pub mod shutdown;
pub mod time;
pub mod traces;
