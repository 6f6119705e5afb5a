//! The lease of the leading coordinator.
//!
//! It avoids duplicate work; correctness does not depend on it. The lease holder must measure the lease with its own
//! clock, from before its request: Redis' answer may arrive late.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Slot, slot_of_tag};

use crate::functions::{self, Function};
use crate::layout::{LEASE_KEY, SALES_KEY};

/// Takes the lease when it is free, and renews it when this coordinator holds it. See `lead.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Lead<'a> {
    /// Name of the coordinator. Every process needs a unique name.
    pub coordinator: &'a str,
    /// Time to hold the lease from now on, in whole milliseconds. Zero releases it.
    pub hold: Duration,
}

/// The state of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Name of the lease holder; `None` when the lease is free.
    pub holder: Option<String>,
    /// Remaining time of the lease unless it is renewed.
    pub left: Duration,
}

impl Call for Lead<'_> {
    type Answer = Lease;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Lead, &[LEASE_KEY]);
        cmd.arg(self.coordinator).arg(self.hold.as_millis() as u64);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Lease, CallError> {
        let (holder, left_ms): (String, u64) = from_redis_value(reply)?;
        let holder = (!holder.is_empty()).then_some(holder);
        Ok(Lease { holder, left: Duration::from_millis(left_ms) })
    }
}
