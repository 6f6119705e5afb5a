//! The lease on leading the coordinators: asking for it, and who holds it.
//!
//! It says who does the work, so that it is done once; nothing rests on it. Whoever holds it must measure it with
//! a clock of its own, from before it asked: Redis' answer may have been on its way for long.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};

use crate::calls::{Call, CallError};
use crate::functions::{self, Function};
use crate::layout::{LEASE_KEY, SALES_KEY, Slot, slot_of_tag};

/// Takes the lease where nobody holds it, and renews it where this coordinator does. See `lead.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Lead<'a> {
    /// Who asks; no two processes may ask by one name.
    pub coordinator: &'a str,
    /// How long to hold it from now on, in whole milliseconds. Zero gives it up.
    pub hold: Duration,
}

/// Who holds the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The coordinator; none where nobody holds it.
    pub holder: Option<String>,
    /// How long it holds it still, if it does not renew it.
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
