//! Shards that did not confirm an operation.

use std::fmt;

use stock::calls::CallError;
use stock::ids::ShardId;

/// A shard that did not confirm an operation.
#[derive(Clone, Debug)]
pub struct UnconfirmedShard {
    /// The shard.
    pub shard: ShardId,
    /// The reason.
    pub reason: UnconfirmedReason,
}

/// Why a shard did not confirm.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnconfirmedReason {
    /// It did not answer, it refused, or its answer is not durable.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It holds other settings, of a newer version.
    #[error("it holds {}", .0.join(", "))]
    OtherSettings(Vec<String>),
}

impl fmt::Display for UnconfirmedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.reason)
    }
}
