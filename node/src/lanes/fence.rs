//! Fences against calls that Redis executes after their lane has given them up.
//!
//! TCP may deliver a call long after its connection was closed. So each `buy` names the latest time, by the clock of
//! its primary, at which it may be executed. Until that clock has passed this time, a refusal of the same attempt is not
//! definite: the earlier call could still buy.
//!
//! All times are compared on one clock, that of the primary, so it may be wrong. A clock that is set forward refuses
//! the calls of one pipeline. One that is set back delays refusals that follow a lost reply. When another primary has
//! taken over, the earlier call counts nowhere: a replica refuses it, and what a primary without the slot executes is
//! dropped when it becomes a replica.

use std::collections::HashMap;
use std::time::Duration;

use rediscluster::EpochMs;
use stock::calls::{Attempt, BuyOutcome};
use stock::ids::OrderId;
use tokio::time::Instant;

/// A reading of a primary's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    /// Local time before the clock was asked.
    pub(super) asked_at: Instant,
    /// The primary's time.
    pub(super) read: EpochMs,
}

impl ClockReading {
    /// Returns the primary's time `wait` from now. It is too late by at most the time that the reading took, and never
    /// too early.
    pub(super) fn after(self, wait: Duration) -> EpochMs {
        self.read + (self.asked_at.elapsed() + wait).as_millis() as EpochMs
    }
}

/// Attempts whose call to this primary got no reply, each with the time until which the call may be executed.
#[derive(Debug, Default)]
pub(super) struct LostCalls(HashMap<OrderId, EpochMs>);

impl LostCalls {
    pub(super) fn add<'a>(&mut self, attempts: impl Iterator<Item = &'a Attempt>, not_after: EpochMs) {
        for attempt in attempts {
            let latest = self.0.entry(attempt.order).or_default();
            *latest = not_after.max(*latest);
        }
    }

    /// Returns true when an earlier call of this attempt may still change the outcome.
    pub(super) fn may_change(&self, attempt: &Attempt, outcome: &BuyOutcome, at: EpochMs) -> bool {
        !outcome.is_claimed() && self.0.get(&attempt.order).is_some_and(|not_after| at <= *not_after)
    }

    /// Forgets the calls that can no longer be executed.
    pub(super) fn expire(&mut self, now: EpochMs) {
        self.0.retain(|_, not_after| now <= *not_after);
    }
}

#[cfg(test)]
mod tests {
    use stock::ids::{UserId, UserIdKind};

    use super::*;

    fn attempt() -> Attempt {
        Attempt {
            user: UserId::parse("ann", UserIdKind::Opaque).unwrap(),
            order: OrderId::random(),
            correlation: "trace".into(),
            counts_towards_limit: true,
        }
    }

    #[test]
    fn refusal_is_definite_once_lost_calls_are_too_late() {
        let (lost_twice, other) = (attempt(), attempt());
        let mut lost = LostCalls::default();
        lost.add([&lost_twice].into_iter(), 1_000);
        lost.add([&lost_twice].into_iter(), 900);
        for refusal in [BuyOutcome::Empty, BuyOutcome::NotOpen, BuyOutcome::Limited(Duration::ZERO)] {
            assert!(lost.may_change(&lost_twice, &refusal, 1_000));
            assert!(!lost.may_change(&lost_twice, &refusal, 1_001));
            assert!(!lost.may_change(&other, &refusal, 0));
        }
        lost.expire(1_000);
        assert!(
            lost.may_change(&lost_twice, &BuyOutcome::Empty, 1_000),
            "it may be executed in this millisecond"
        );
        lost.expire(1_001);
        assert!(lost.0.is_empty());
    }
}
