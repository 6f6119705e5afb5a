//! The HTTP edge: parses requests into domain types and turns outcomes into responses.
//!
//! Nothing else in this crate knows status codes or JSON, and no raw string gets past this module. Each family of
//! endpoints has its responses in one file.

mod admission;
pub(crate) mod by_sale;
mod caller;
mod client;
pub(crate) mod cors;
pub(crate) mod csrf;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod openapi;
pub(crate) mod page;
mod problems;
mod request;
pub(crate) mod single_sale;
mod state;

pub use admission::ClientAdmission;
pub use state::AppState;
