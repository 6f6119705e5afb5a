//! Tests of the node's edge through the real router and a real Redis Cluster: requests of buyers and their responses.
//! And tests of the process, from its settings to its end.

#![expect(clippy::unwrap_used, reason = "a failing unwrap names its line, also in test helpers")]

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
