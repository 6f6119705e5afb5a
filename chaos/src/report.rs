//! Results of a run, in numbers.

use serde::{Deserialize, Serialize};

use crate::{ChangeCounts, Counts, FaultKind};

/// Results of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Seed of the schedule.
    pub seed: u64,
    /// Version of the Redis server.
    pub redis: String,
    /// Audited sales.
    pub sales: u64,
    /// Changes by operators.
    #[serde(flatten)]
    pub changes: ChangeCounts,
    /// Requests of buyers.
    #[serde(flatten)]
    pub counts: Counts,
    /// Rows in PostgreSQL, compared with claims.
    pub rows: u64,
    /// Parcels that the shop packed: one for each row and sink.
    pub parcels: u64,
    /// 99th percentile of the latency between faults, in milliseconds.
    pub quiet_p99_ms: f64,
    /// Requests with an unknown outcome between faults.
    pub quiet_unknown: u64,
    /// Seconds from the opening to the end of the audit.
    pub seconds: f64,
    /// The faults, in order.
    pub faults: Vec<FaultReport>,
    /// Descriptions of broken promises. Empty if every promise held.
    pub violations: Vec<String>,
}

/// Results of one fault, from its first signal until the cluster was healthy again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultReport {
    /// Kind of the fault.
    pub kind: FaultKind,
    /// Seconds from the opening to the fault.
    pub at_seconds: f64,
    /// Description of the target.
    pub target: String,
    /// Shards whose buyers were affected.
    pub shards: Vec<u16>,
    /// Seconds until every process ran and the cluster was healthy.
    pub whole_after_seconds: f64,
    /// Longest time without a definite answer for buyers of an affected shard, in seconds. None if no shard was
    /// affected.
    pub outage_seconds: Option<f64>,
    /// Purchases reported during the fault.
    pub purchases: u64,
    /// Requests sent during the fault with an unknown outcome.
    pub unknown: u64,
    /// Requests sent during the fault by buyers of other shards, through nginx.
    pub others_requests: u64,
    /// Requests among `others_requests` with an unknown outcome.
    pub others_unknown: u64,
    /// 99th percentile of the latency of other shards' definite answers, in milliseconds.
    pub others_p99_ms: f64,
}
