//! Attacks on the public address, tried on a whole stack. Each attack is refused, and the service still sells after
//! it. Attacks that need no network are tested at a node's router, in the crate `node`.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

mod crowds;
mod fixture;
mod identifiers;
mod identities;
mod malformed_requests;
mod network_units;
mod order_ids;
mod process_list;
mod shared_address;
mod slow_readers;
mod user_limits;
