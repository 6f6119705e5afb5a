//! The client side of the HTTP API: requests of buyers and operators, and the meaning of the answers.
//!
//! Tests, attacks and load tests send their requests through this crate, so an answer is read in one place:
//!
//! - [`BuyerClient`] sends purchases, lookups and status requests in both families of endpoints; each becomes an [`Answer`];
//! - [`AdminClient`] sends the requests of operators, [`LedgerClient`] those to a ledger;
//! - a [`journal`] keeps each request before it is sent, and each answer before a client acts on it;
//! - [`verdict::violations`] compares a journal with the sale's [`FinalState`];
//! - [`retry_pause`] and [`wait_to_retry`] decide when a request is repeated.
//!
//! It knows the contract of the API. It does not know where processes run, and it starts none.

mod admin;
mod answers;
mod claims;
mod client;
pub mod journal;
mod ledger;
mod retry;
mod status;
pub mod verdict;

pub use admin::{AdminClient, audit_findings, first_findings, read_json};
pub use answers::{Answer, AnswerKind, ApiFamily, Received};
pub use claims::{Claim, FinalState};
pub use client::{ANSWER_LIMIT, BuyerClient, PurchaseRequest, retry_after};
pub use ledger::{LedgerAudit, LedgerClient};
pub use retry::{retry_pause, wait_to_retry};
pub use status::{SaleStatus, StockStatus, timestamp};
pub use stock::{audit::AuditReport, sale::ShardSettings};
