//! Buyers who keep a journal: a paced stream of them while faults come, and a crowd at the end that buys the rest.
//!
//! Each home shard has a number of requests it may have under way: a shard that does not answer holds up its own
//! buyers, and nobody else's.
//!
//! Some buyers of the default sale use the second family of calls, and some send no `Idempotency-Key`: which ones
//! follows from their number.

mod behaviours;
mod buyers;
mod client;
mod crowd;
mod csrf;

pub use buyers::Buyer;
pub(crate) use client::retry_after;
pub use client::{Counts, RequestOutcome};
pub use crowd::BuyerCrowd;
pub(crate) use crowd::{ArrivalRate, NGINX};
