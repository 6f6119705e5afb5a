//! Buyers who keep a journal: a paced stream of them while faults come, and a crowd at the end that buys the rest.
//!
//! Each home shard has a number of requests it may have under way: a shard that does not answer holds up its own
//! buyers, and nobody else's.

mod client;
mod people;
mod shop;
mod stories;

pub use client::{Counts, Heard};
pub use people::Person;
pub use shop::Shop;
pub(crate) use shop::{NGINX, Pace};
