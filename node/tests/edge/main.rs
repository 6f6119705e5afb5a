//! The node's edge: what buyers may send, and what they are told, through the real router and a real Redis
//! Cluster; and the process around it, from its settings to its end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where, also in what it is told with")]

mod answers;
mod bad_input;
mod csrf;
mod description;
mod events;
mod fixture;
mod identity;
mod limits;
mod process;
mod traces;
