//! Rate limits that hold for all nodes together. Redis counts, in memory alone; see `shared.lua` and `admit.lua`.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};

use crate::calls::{Call, CallError};
use crate::functions::{self, Function};
use crate::layout::{LimitBucket, Slot};

/// So many permits a window: all of them at once at first, then one by one as they come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At least one.
    pub permits: u32,
    /// How long until as many have come back. Longer than nothing.
    pub window: Duration,
}

impl Limit {
    /// How long until one permit comes back, in milliseconds.
    pub(crate) fn interval_ms(self) -> f64 {
        self.interval().as_secs_f64() * 1_000.0
    }

    /// How long until one permit comes back.
    pub fn interval(self) -> Duration {
        self.window / self.permits
    }
}

/// Asks for permits for some addresses of one bucket.
#[derive(Clone, Debug)]
pub struct Admit<'a> {
    /// The bucket of all of them.
    pub bucket: &'a LimitBucket,
    /// The limit of each address.
    pub limit: Limit,
    /// What is asked for.
    pub asks: &'a [PermitRequest],
}

/// What a node asks for in the name of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitRequest {
    /// The address, or its network.
    pub address: String,
    /// Permits it used already, without asking.
    pub spent: u32,
    /// Permits it wants besides.
    pub want: u32,
}

/// What an address may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitAnswer {
    /// So many requests. Some, though maybe fewer than wanted.
    Granted(u32),
    /// None before this time has passed.
    After(Duration),
}

impl Call for Admit<'_> {
    type Answer = Vec<PermitAnswer>;

    fn slot(&self) -> Slot {
        self.bucket.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Admit, &[&self.bucket.key]);
        cmd.arg(self.limit.interval_ms()).arg(self.limit.permits);
        for PermitRequest { address, spent, want } in self.asks {
            cmd.arg(address).arg(spent).arg(want);
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Vec<PermitAnswer>, CallError> {
        let numbers: Vec<u64> = from_redis_value(reply)?;
        let (answers, rest) = numbers.as_chunks();
        if answers.len() != self.asks.len() || !rest.is_empty() {
            let (numbers, asks) = (numbers.len(), self.asks.len());
            return Err(CallError::Malformed(format!("{numbers} numbers in answer to {asks} addresses")));
        }
        let permits = |&[granted, wait_ms]: &[u64; 2]| match u32::try_from(granted) {
            Ok(0) => PermitAnswer::After(Duration::from_millis(wait_ms)),
            granted => PermitAnswer::Granted(granted.unwrap_or(u32::MAX)),
        };
        Ok(answers.iter().map(permits).collect())
    }
}
