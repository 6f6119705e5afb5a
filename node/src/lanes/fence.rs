//! Fences against calls that Redis executes after their lane has given them up.
//!
//! TCP may deliver a call long after its connection was closed. So each `buy` names the latest time, by the clock of
//! its primary, at which it may be executed. Until that clock has passed this time, a refusal of the same attempt is not
//! definite: the earlier call could still buy.
//!
//! The attempt may be repeated through another lane, because a replica has taken over or because its primary is on the
//! map with another address. So all lanes of a node share their lost calls. A primary judges the calls that were sent to
//! it by its own clock, which may be wrong: a clock that is set forward refuses the calls of one pipeline, and one that
//! is set back delays refusals that follow a lost reply. Calls to another primary are judged by the node's time. They
//! count only if that primary takes its slots back in time; otherwise its late writes are dropped when it becomes a
//! replica.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rediscluster::EpochMs;
use stock::calls::{Attempt, BuyOutcome};
use stock::ids::OrderId;
use tokio::time::Instant;

/// Time for which a lost call is remembered after it can no longer be executed by the node's time. A primary's clock
/// may be set back by as much while a call is lost.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// A reading of a primary's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    /// Local time before the clock was asked.
    pub(super) asked_at: Instant,
    /// Local time of the reply.
    pub(super) answered_at: Instant,
    /// The primary's time.
    pub(super) read: EpochMs,
}

impl ClockReading {
    /// Returns the deadline of calls that may be executed until `wait` from `now`. By the primary's clock it is too late by
    /// at most the time that the reading took, and never too early.
    pub(super) fn deadline(self, now: Instant, wait: Duration) -> Deadline {
        let since_read = now - self.asked_at + wait;
        Deadline {
            by_primary: self.read + since_read.as_millis() as EpochMs,
            by_node: self.answered_at + since_read,
        }
    }
}

/// Latest time at which a call may be executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// The time on the primary's clock, which Redis compares.
    pub(super) by_primary: EpochMs,
    /// The local time at which the primary's clock has reached it for certain, unless that clock is set back.
    by_node: Instant,
}

/// Attempts of one primary whose call got no reply.
type LostAttempts = HashMap<OrderId, Deadline>;

/// Calls of this node that got no reply, by the id of their primary.
#[derive(Debug, Default)]
pub(super) struct LostCalls(Mutex<HashMap<Arc<str>, LostAttempts>>);

impl LostCalls {
    pub(super) fn add<'a>(
        &self,
        primary: &Arc<str>,
        attempts: impl Iterator<Item = &'a Attempt>,
        deadline: Deadline,
    ) {
        let mut lost = self.lock();
        let lost = lost.entry(Arc::clone(primary)).or_default();
        for attempt in attempts {
            let latest = lost.entry(attempt.order).or_insert(deadline);
            latest.by_primary = latest.by_primary.max(deadline.by_primary);
            latest.by_node = latest.by_node.max(deadline.by_node);
        }
    }

    /// Returns the view of the primary with this id, which has just answered.
    pub(super) fn seen_by<'a>(&'a self, primary: &'a str, now: Instant) -> LostCallsView<'a> {
        // Without any lost call, which is nearly always so, the other lanes need not wait for this one.
        let lost = Some(self.lock()).filter(|lost| !lost.is_empty());
        LostCallsView { lost, primary, now }
    }

    /// Forgets the calls that this primary can no longer execute, by its own clock.
    pub(super) fn expire(&self, primary: &str, now: EpochMs) {
        if let Some(lost) = self.lock().get_mut(primary) {
            lost.retain(|_, deadline| now <= deadline.by_primary);
        }
    }

    /// Forgets the calls that were lost long ago.
    pub(super) fn forget_old(&self, now: Instant) {
        self.lock().retain(|_, lost| {
            lost.retain(|_, deadline| now <= deadline.by_node + REMEMBERED_FOR);
            !lost.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, LostAttempts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lost calls, judged by one primary.
pub(super) struct LostCallsView<'a> {
    lost: Option<MutexGuard<'a, HashMap<Arc<str>, LostAttempts>>>,
    primary: &'a str,
    now: Instant,
}

impl LostCallsView<'_> {
    /// Returns true when an earlier call of this attempt may still change the outcome, which the primary gave at `at`.
    pub(super) fn may_change(&self, attempt: &Attempt, outcome: &BuyOutcome, at: EpochMs) -> bool {
        let Some(lost) = self.lost.as_ref().filter(|_| !outcome.is_claimed()) else { return false };
        lost.iter().any(|(primary, lost)| {
            lost.get(&attempt.order).is_some_and(|deadline| {
                if **primary == *self.primary {
                    at <= deadline.by_primary
                } else {
                    self.now <= deadline.by_node
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use stock::ids::{UserId, UserIdKind};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn attempt() -> Attempt {
        Attempt {
            user: UserId::parse("ann", UserIdKind::Opaque).unwrap(),
            order: OrderId::random(),
            correlation: "trace".into(),
        }
    }

    #[test]
    fn refusal_is_definite_once_lost_calls_are_too_late() {
        let (now, primary): (_, Arc<str>) = (Instant::now(), "a".into());
        let clock = ClockReading { asked_at: now, answered_at: now, read: 0 };
        let (lost_twice, other) = (attempt(), attempt());
        let lost = LostCalls::default();
        lost.add(&primary, [&lost_twice].into_iter(), clock.deadline(now, SECOND));
        lost.add(&primary, [&lost_twice].into_iter(), clock.deadline(now, SECOND - MILLISECOND));
        let may_change = |attempt: &Attempt, outcome: &BuyOutcome, at| {
            lost.seen_by(&primary, now + 9 * SECOND).may_change(attempt, outcome, at)
        };
        for refusal in [BuyOutcome::Empty, BuyOutcome::NotOpen] {
            assert!(may_change(&lost_twice, &refusal, 1_000));
            assert!(!may_change(&lost_twice, &refusal, 1_001));
            assert!(!may_change(&other, &refusal, 0));
        }
        lost.expire(&primary, 1_000);
        assert!(may_change(&lost_twice, &BuyOutcome::Empty, 1_000), "it may be executed in this millisecond");
        lost.expire(&primary, 1_001);
        assert!(!may_change(&lost_twice, &BuyOutcome::Empty, 1_000));
    }

    #[test]
    fn another_primary_judges_lost_calls_by_local_time() {
        // Given a call that was lost at one primary. The last reading of its clock had taken a second.
        let asked_at = Instant::now();
        let sent_at = asked_at + SECOND;
        let clock = ClockReading { asked_at, answered_at: sent_at, read: 70_000 };
        let (attempt, lost) = (attempt(), LostCalls::default());
        lost.add(&"a".into(), [&attempt].into_iter(), clock.deadline(sent_at, SECOND));

        // Then another primary, whose clock is behind, can refuse the attempt once the first clock must have passed the
        // deadline.
        let may_change =
            |primary, now, at| lost.seen_by(primary, now).may_change(&attempt, &BuyOutcome::Empty, at);
        assert!(may_change("b", sent_at + 2 * SECOND, 3));
        assert!(!may_change("b", sent_at + 2 * SECOND + MILLISECOND, 3));

        // And the call is remembered in case the first clock is set back, but not for ever.
        let late = sent_at + 2 * SECOND + REMEMBERED_FOR;
        lost.forget_old(late);
        assert!(may_change("a", late, 70_000));
        lost.forget_old(late + MILLISECOND);
        assert!(lost.lock().is_empty());
    }
}
