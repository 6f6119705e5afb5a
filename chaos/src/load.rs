//! Buyers who keep a journal: a paced stream of them while faults come, and a crowd at the end that buys the rest.
//!
//! Each home shard has a number of requests it may have under way: a shard that does not answer holds up its own
//! buyers, and nobody else's.
//!
//! Some buyers of the default sale use the second family of calls, and some send no `Idempotency-Key`: which ones
//! follows from their number.

mod client;
mod csrf;
mod people;
mod shop;
mod stories;

pub(crate) use client::retry_after;
pub use client::{Counts, Heard};
pub use people::Person;
pub use shop::Shop;
pub(crate) use shop::{NGINX, Pace};
