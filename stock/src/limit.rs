//! Rate limits shared by all nodes. Redis counts in memory what nodes report and borrow; see `admit.lua`.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Slot};

use crate::functions::{self, Function};
use crate::layout::LimitBucket;

/// A number of permits per window. All are available at first; used permits come back one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Number of permits, at least one.
    pub permits: u32,
    /// Time in which this many permits come back. Must not be zero.
    pub window: Duration,
}

impl Limit {
    /// Returns the time until one permit comes back.
    pub fn interval(self) -> Duration {
        self.window / self.permits
    }
}

/// Requests permits for clients of one bucket. See `admit.lua`.
#[derive(Clone, Debug)]
pub struct Admit<'a> {
    /// The bucket of all clients.
    pub bucket: &'a LimitBucket,
    /// The limit of each client.
    pub limit: Limit,
    /// One request per client.
    pub requests: &'a [PermitRequest],
}

/// A node's request for permits of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitRequest {
    /// Name of the client.
    pub name: String,
    /// Permits that were used already without asking.
    pub spent: u32,
    /// Further permits wanted.
    pub want: u32,
}

/// The answer for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitAnswer {
    /// This many requests are permitted: at least one, possibly fewer than wanted.
    Granted(u32),
    /// No request is permitted before this time has passed.
    After(Duration),
}

impl Call for Admit<'_> {
    type Answer = Vec<PermitAnswer>;

    fn slot(&self) -> Slot {
        self.bucket.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Admit, &[&self.bucket.key]);
        cmd.arg(self.limit.interval().as_secs_f64() * 1_000.0).arg(self.limit.permits);
        for PermitRequest { name, spent, want } in self.requests {
            cmd.arg(name).arg(spent).arg(want);
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Vec<PermitAnswer>, CallError> {
        let numbers: Vec<u64> = from_redis_value(reply)?;
        let (answers, rest) = numbers.as_chunks();
        if answers.len() != self.requests.len() || !rest.is_empty() {
            let (numbers, requests) = (numbers.len(), self.requests.len());
            return Err(CallError::Malformed(format!("{numbers} numbers in answer to {requests} clients")));
        }
        let permits = |&[granted, wait_ms]: &[u64; 2]| match u32::try_from(granted) {
            Ok(0) => PermitAnswer::After(Duration::from_millis(wait_ms)),
            granted => PermitAnswer::Granted(granted.unwrap_or(u32::MAX)),
        };
        Ok(answers.iter().map(permits).collect())
    }
}
