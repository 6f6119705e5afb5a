//! Purchases on the wire: what buyers send, what nginx changes, and what a node receives.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

mod buyers;
mod crowded_nginx;
mod fake_node;
mod nginx;
