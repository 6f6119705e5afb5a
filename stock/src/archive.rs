//! Archiving: the calls that end a sale's use of Redis, once a ledger has its orders.

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Slot};
use serde::{Deserialize, Serialize};

use crate::functions::{self, Function};
use crate::layout::Shard;

/// The final numbers of an archived sale. Its record keeps them when its shards are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// Units sold.
    pub sold: u64,
    /// True once all shards are removed for good. Then nothing is left to do for the sale.
    #[serde(default)]
    pub is_removed: bool,
}

/// Removes a shard of an archived sale. See `archive.lua`.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveShard<'a> {
    /// The shard.
    pub shard: &'a Shard,
}

impl Call for ArchiveShard<'_> {
    type Answer = ();

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let Shard { meta, claims, orders, control, ring, .. } = self.shard;
        let mut cmd = functions::fcall(Function::Archive, &[meta, claims, orders, control]);
        cmd.arg(ring.as_str());
        cmd
    }

    fn answer(&self, _reply: Value) -> Result<(), CallError> {
        Ok(())
    }
}

/// Notes how far the orders of a shard are in a ledger. See `drained.lua`.
#[derive(Clone, Copy, Debug)]
pub struct NoteDrained<'a> {
    /// The shard.
    pub shard: &'a Shard,
    /// Number of the latest entry in the ledger.
    pub seq: u64,
}

impl Call for NoteDrained<'_> {
    type Answer = ();

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Drained, &[&self.shard.meta]);
        cmd.arg(self.shard.ring.as_str()).arg(self.seq);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<(), CallError> {
        let _noted: u64 = from_redis_value(reply)?;
        Ok(())
    }
}
