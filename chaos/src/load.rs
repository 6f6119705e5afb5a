//! Generates load: buyers who keep a journal. They arrive at a fixed rate while faults happen, and a crowd buys the
//! rest at the end.
//!
//! The number of requests in flight is limited per home shard: a shard that does not answer delays only its own buyers.
//!
//! Some buyers of the default sale use the single-sale endpoints, and some send no `Idempotency-Key`. Which ones
//! follows from the buyer's number.

mod behaviours;
mod buyers;
mod client;
mod crowd;

pub use buyers::Buyer;
pub use client::Counts;
pub use crowd::BuyerCrowd;
pub(crate) use crowd::{ArrivalRate, NGINX};
