//! Who tests the testers: with a protection taken out, the audit must turn red, and with it in, the very same story
//! is clean.

#![expect(clippy::unwrap_used, reason = "what a story cannot go on without fails it")]

mod barriers;
mod fixture;
mod functions;
mod lost_disks;
mod operators;
