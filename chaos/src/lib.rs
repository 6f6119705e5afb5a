//! Attacks a real flash sale under load, and holds what clients were told against what is true.
//!
//! A run has a [`Schedule`] that its seed alone decides, a sale on real processes, buyers who write everything down
//! before they ask and before they believe ([`journal`]), an operator at work, side sales, one fault after the other ([`FaultKind`]), and an audit from three
//! sides: the books in Redis, the clients' journal ([`verdict`]), and the status that everybody sees.
//!
//! It looks at the product from outside: over HTTP, over Redis, and by signals to processes. `testkit` starts and
//! breaks what it is told to; what is worth breaking, and what must hold then, is said here.
//!
//! Invariant: a fault ends with the cluster whole again, so that one fault is tried at a time and what the audit finds
//! can be told from the schedule.

mod audit;
mod claims;
mod fault_kind;
mod faults;
pub mod journal;
mod load;
mod operator;
mod report;
mod run;
mod schedule;
mod table;
mod testbed;
mod timeline;
pub mod verdict;

pub use audit::audit;
pub use claims::{Claim, FinalState, ShardSettings, read_claims, read_final_state};
pub use fault_kind::FaultKind;
pub use faults::FaultEffect;
pub use load::{Buyer, BuyerCrowd, Counts, RequestOutcome};
pub use operator::Operator;
pub use report::{FaultReport, Report};
pub use run::{RunEvent, RunOptions, run};
pub use schedule::{PlannedFault, Schedule};
pub use table::markdown;
pub use testbed::{connect, read_sale};
