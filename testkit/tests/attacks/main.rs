//! What strangers send to a public address, tried on a whole stack: each attack is refused, and after each the service
//! sells as before. What needs no network is tried at the router of a node, in the crate `node`.

#![expect(clippy::unwrap_used, reason = "what a story cannot go on without fails it")]

mod crowds;
mod names;
mod stage;
mod wire;
