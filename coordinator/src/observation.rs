//! One observation of a sale: the levels of its shards, and the conclusions from them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use rediscluster::{CallError, EpochMs};
use stock::calls::Level;
use stock::channels::{OpenChannel, open_channels};
use stock::ids::SaleId;
use stock::sale::Sale;
use stock::snapshot::Snapshot;
use tokio::time::Instant;

use crate::desired_state::DesiredState;
use crate::shard_problem::{ShardProblem, persistent, problems};
use crate::violations::{Violations, violations};

/// The latest observation of each sale. Empty before the first round, and on followers.
pub type Observations = Arc<BTreeMap<SaleId, Observation>>;

/// An observation of a sale in one round.
pub struct Observation {
    /// When it began.
    pub observed_at: Instant,
    /// The middle of the observation, by the coordinator's wall clock.
    pub observed_at_ms: EpochMs,
    /// The record at that time.
    pub desired: DesiredState,
    /// The levels of the shards.
    pub levels: Vec<Result<Level, CallError>>,
    /// The snapshot of these levels.
    pub snapshot: Snapshot,
    /// Problems of the shards.
    pub problems: Vec<ShardProblem>,
    /// Problems that the previous observation has found too.
    pub persistent_problems: Vec<ShardProblem>,
    /// Violations that the previous observation has found too.
    pub violations: Violations,
    /// Violations in this observation alone.
    pub current_violations: Violations,
}

impl Observation {
    /// The observation of these levels at this time, by the monotonic clock and by the wall clock. The snapshot keeps
    /// the previous numbers of shards that cannot be read. A previous observation of another sale of the same name is
    /// ignored.
    pub(crate) fn of(
        desired: &DesiredState,
        levels: Vec<Result<Level, CallError>>,
        (observed_at, observed_at_ms): (Instant, EpochMs),
        previous: Option<&Self>,
    ) -> Self {
        let previous = previous.filter(|previous| previous.is_of(&desired.sale));
        let problems = problems(desired, &levels);
        let current_violations = violations(desired, &levels, &problems);
        let violations_before = previous.map(|previous| previous.current_violations).unwrap_or_default();
        Self {
            observed_at,
            observed_at_ms,
            snapshot: Snapshot::of(&desired.sale, &levels, previous.map(|previous| &previous.snapshot)),
            persistent_problems: persistent(&problems, previous.map_or(&[], |previous| &previous.problems)),
            violations: current_violations.persistent(violations_before),
            desired: desired.clone(),
            levels,
            problems,
            current_violations,
        }
    }

    /// Returns true if it is of this sale, and not of another one of the same name.
    pub(crate) fn is_of(&self, sale: &Sale) -> bool {
        self.desired.sale.fingerprint() == sale.fingerprint()
    }

    /// Returns the tokens in channels to each shard.
    pub(crate) fn incoming(&self) -> Vec<u64> {
        let mut incoming = vec![0; self.levels.len()];
        for OpenChannel { channel, tokens, .. } in open_channels(&self.levels) {
            incoming[channel.receiver.index()] += tokens;
        }
        incoming
    }
}
