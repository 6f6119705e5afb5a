//! The images: their build context, their properties, and their health checks.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

mod context;
mod dockerfile;
mod health;
mod images;

/// Each target of the Dockerfile with its program.
const TARGETS: [(&str, &str); 3] =
    [("node", "flashsale-node"), ("coordinator", "flashsale-coordinator"), ("ledger", "flashsale-ledger")];
