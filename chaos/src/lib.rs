//! Attacks a real flash sale under load, and compares the answers that clients got with the state in Redis.
//!
//! A run consists of:
//!
//! - a [`Schedule`] of faults ([`FaultKind`]), made from the seed alone, injected one after the other;
//! - a sale on real processes, plus smaller side sales, whose orders two ledgers write into PostgreSQL;
//! - buyers and an operator. They write each request to the [`journal`](buyers::journal) before they send it, and each answer before they
//!   act on it;
//! - an audit from three sources: the coordinator's audit of Redis, the clients' journal ([`verdict`](buyers::verdict)), and the sale's
//!   public status;
//! - a comparison of the rows in PostgreSQL with the claims in Redis, one to one, and of the parcels of a shop with the
//!   rows: the shop gets each order from RabbitMQ and by a webhook, and packs one parcel for each of the two.
//!
//! The crate uses the product from outside: over HTTP, over Redis, and by signals to processes. `testkit` starts and
//! breaks processes. This crate decides which faults are injected and which promises must hold.
//!
//! Invariant: a fault ends when what it attacked is healthy again. At most two faults are active at a time, one of the sale and
//! one of the orders' way into PostgreSQL, so a finding of the audit can be traced to the schedule.

mod audit;
mod claims;
mod fault_kind;
mod faults;
mod load;
mod operator;
mod orders;
mod report;
mod run;
mod schedule;
mod table;
mod testbed;
mod timeline;

pub use audit::audit;
pub use claims::{read_claims, read_final_state};
pub use fault_kind::FaultKind;
pub use faults::FaultEffect;
pub use load::{Buyer, BuyerCrowd, Counts};
pub use operator::{ChangeCounts, Operator};
pub use orders::{OrderTestbed, audit_feed, audit_orders, ensure_disk_can_be_full};
pub use report::{FaultReport, Report};
pub use run::{RunEvent, RunOptions, run};
pub use schedule::{PlannedFault, Schedule};
pub use table::markdown;
pub use testbed::{connect, read_sale};
