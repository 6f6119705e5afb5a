//! The history of a sale: its latest changes, with the origin of each. It is written in the same atomic call as the
//! change itself (`record.lua`), so that neither exists without the other.

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, EpochMs, Slot};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::layout::SaleKeys;

/// Most changes that are kept for a sale. An older one is dropped for each further one. An entry takes 200 bytes, and at
/// most about 1,000.
pub const HISTORY_ENTRIES_MAX: usize = 256;

/// A change to a sale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Version of the configuration that the change made.
    pub version: u64,
    /// Time of the change, by the coordinator's clock.
    pub at: EpochMs,
    /// Name of the change, such as `pause`.
    pub change: String,
    /// The values of the change, such as `units`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, serde_json::Value>,
    /// Origin of the change.
    #[serde(flatten)]
    pub origin: ChangeOrigin,
}

/// The origin of a change. Without an operator, a coordinator made the change on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeOrigin {
    /// Name of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Address that the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Correlation id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Reason that the operator gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl HistoryEntry {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an entry has only plain fields")
    }
}

/// Reads the kept history of a sale, oldest change first.
#[derive(Clone, Copy, Debug)]
pub struct ReadHistory<'a>(pub &'a SaleKeys);

impl Call for ReadHistory<'_> {
    type Answer = Vec<HistoryEntry>;

    fn slot(&self) -> Slot {
        self.0.slot
    }

    fn command(&self) -> Cmd {
        Cmd::lrange(&self.0.history, 0, -1)
    }

    fn answer(&self, reply: Value) -> Result<Vec<HistoryEntry>, CallError> {
        let entries: Vec<String> = from_redis_value(reply)?;
        let parsed = entries.iter().map(|entry| serde_json::from_str(entry));
        parsed.collect::<Result<_, _>>().map_err(|error| CallError::Malformed(format!("a change: {error}")))
    }
}
