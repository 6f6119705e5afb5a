//! Tests of the audit: it reports violations when a protection is removed, and none in the same scenario with it.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod barriers;
mod fail_points;
mod fixture;
mod functions;
mod lost_disks;
mod operators;
mod orders;
