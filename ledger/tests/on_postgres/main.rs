//! Ledgers on a real PostgreSQL, beside a sale on a real Redis Cluster.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

mod api;
mod audit;
mod drains;
mod exports;
mod filled;
mod fixture;
mod program;
mod reading;
mod restore;
