#![doc = include_str!("../README.md")]

pub mod active;
pub mod archive;
pub mod audit;
pub mod calls;
pub mod channels;
mod email;
pub mod functions;
pub mod history;
pub mod ids;
pub mod import;
pub mod layout;
pub mod lease;
pub mod limit;
pub mod orders;
pub mod places;
pub mod presence;
pub mod ring;
pub mod sale;
pub mod search;
pub mod snapshot;
mod split;
pub mod store;
