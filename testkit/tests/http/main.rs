//! Purchases on the wire: what buyers send, what nginx makes of it, and what a node gets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where, also in what it is told with")]

mod buyers;
mod fake_node;
mod nginx;
