//! Imports orders into the shards of a sale that is built anew after its data was lost.

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Slot};

use crate::calls::Claim;
use crate::functions::{self, Function};
use crate::ids::UserId;
use crate::layout::Shard;
use crate::snapshot::Confirmed;

/// Most orders in one call. They become one entry of the stream, as the orders of one `buy` do.
pub const IMPORTS_PER_CALL_MAX: usize = crate::calls::BUYERS_PER_CALL_MAX;

/// An order of a lost sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedOrder {
    /// The buyer, or [`UserId::erased`].
    pub user: UserId,
    /// The claim of the order.
    pub claim: Claim,
    /// Correlation id of the request. May be empty.
    pub correlation: Box<str>,
}

/// Imports orders into their home shard while it is being created. Idempotent. See `import.lua`.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// The home shard of all users.
    pub shard: &'a Shard,
    /// At most [`IMPORTS_PER_CALL_MAX`] orders.
    pub orders: &'a [ImportedOrder],
}

impl Call for Import<'_> {
    type Answer = Confirmed;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let Shard { meta, claims, orders, control, ring, .. } = self.shard;
        let mut cmd = functions::fcall(Function::Import, &[meta, claims, orders, control]);
        cmd.arg(ring.as_str());
        for ImportedOrder { user, claim, correlation } in self.orders {
            let Claim { order, purchased_at } = claim;
            cmd.arg(user.as_str()).arg(format!("{order}:{purchased_at}")).arg(&**correlation);
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Confirmed, CallError> {
        let (sold, seq) = from_redis_value(reply)?;
        Ok(Confirmed { sold, seq })
    }
}
