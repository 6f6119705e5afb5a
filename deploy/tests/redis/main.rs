//! The scripts of `deploy/redis` and `flashsale-coordinator cluster`, run against real servers that start from password
//! files. Clusters are created, grown and repaired. The tests use TLS when the server program supports it.

#![expect(clippy::unwrap_used, reason = "a test whose fixture cannot be set up has failed")]

mod creation;
mod fixture;
mod growth;
mod handover;
mod interruptions;
mod refusals;
mod rotation;
mod sale;
mod startup;
mod truncated_files;
