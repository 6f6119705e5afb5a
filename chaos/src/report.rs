//! What a run found, in numbers.

use serde::{Deserialize, Serialize};

use crate::FaultKind;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What its schedule was made from.
    pub seed: u64,
    /// The server that was attacked.
    pub redis: String,
    /// Sales that were audited.
    pub sales: u64,
    /// Changes that operators asked for.
    pub changes: u64,
    /// Those of them that were answered to be done.
    pub changes_done: u64,
    /// Requests that it took.
    pub change_tries: u64,
    /// Requests sent.
    pub requests: u64,
    /// Purchases told, each held against its claim.
    pub purchases: u64,
    /// Requests whose answer left things unknown; each was asked again.
    pub unknown: u64,
    /// Refusals because a sale was not selling then.
    pub not_active: u64,
    /// Requests of the second family of calls.
    pub single_sale: u64,
    /// Purchases asked for without an `Idempotency-Key`.
    pub without_key: u64,
    /// 99 % of the requests in quiet times were answered within this.
    pub quiet_p99_ms: f64,
    /// Answers in quiet times that left things unknown.
    pub quiet_unknown: u64,
    /// From the opening to the end of the audit.
    pub seconds: f64,
    /// Each fault, in order.
    pub faults: Vec<FaultReport>,
    /// Each broken promise, in words; empty if all is well.
    pub violations: Vec<String>,
}

/// A fault, from its first signal until the cluster was whole again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultReport {
    /// What.
    pub kind: FaultKind,
    /// Seconds after the opening.
    pub at_seconds: f64,
    /// Whom.
    pub target: String,
    /// The shards whose buyers it hit.
    pub shards: Vec<u16>,
    /// Until everything ran and the cluster was whole.
    pub whole_after_seconds: f64,
    /// The longest time in which buyers of an affected shard heard nothing definite.
    pub outage_seconds: Option<f64>,
    /// Purchases told meanwhile.
    pub purchases: u64,
    /// Requests sent meanwhile whose answer left things unknown.
    pub unknown: u64,
    /// Requests sent meanwhile by buyers of other shards, through nginx.
    pub others_requests: u64,
    /// Those of them whose answer left things unknown.
    pub others_unknown: u64,
    /// 99 % of the definite ones were answered within this.
    pub others_p99_ms: f64,
}
