//! What a coordinator knows of the lease on leading: whether it leads, and who else does. Pure.

use std::time::Duration;

use stock::lease::Lease;
use tokio::time::Instant;

/// The part of a lease that its holder does not count on: clocks do not run equally fast, and a round that is
/// begun takes a while.
const MARGIN: u32 = 10;

/// The latest answer to a look at the lease, for as long as it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseHolder {
    holder: Option<Holder>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    name: String,
    is_self: bool,
    until: Instant,
}

/// What a coordinator is to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRole {
    /// It does what one of them is to do.
    Leading,
    /// Another one does, or nobody that is known.
    Following(Option<String>),
}

impl LeaseHolder {
    /// What an answer says to the coordinator of this name. Its own tenure counts from before it asked: the
    /// answer may have been on its way for long. Another's counts from now, for the same reason.
    pub fn of(name: &str, answer: Lease, asked_at: Instant, now: Instant) -> Self {
        let Lease { holder, left } = answer;
        let holder = holder.map(|holder| match holder == name {
            true => Holder { name: holder, is_self: true, until: asked_at + left - left / MARGIN },
            false => Holder { name: holder, is_self: false, until: now + left },
        });
        Self { holder }
    }

    /// What it makes of its coordinator now. Without a newer answer it runs out by itself.
    pub fn role(&self, now: Instant) -> CoordinatorRole {
        match self.holder.as_ref().filter(|holder| now < holder.until) {
            Some(Holder { is_self: true, .. }) => CoordinatorRole::Leading,
            other => CoordinatorRole::Following(other.map(|holder| holder.name.clone())),
        }
    }

    /// Whether its coordinator leads now.
    pub fn leads(&self, now: Instant) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.is_self && now < holder.until)
    }

    /// When to look at the lease again: after a while, and at once when another's runs out.
    pub fn next_look(&self, now: Instant, every: Duration) -> Instant {
        let other = self.holder.as_ref().filter(|holder| !holder.is_self && now < holder.until);
        other.map_or(now + every, |other| other.until.min(now + every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held_by(name: &str) -> Lease {
        Lease { holder: Some(name.into()), left: SECOND }
    }

    #[test]
    fn a_lease_is_trusted_for_less_than_it_lasts_and_from_before_it_was_asked_for() {
        let asked_at = Instant::now();
        let answered_at = asked_at + SECOND / 2;
        let tenure = LeaseHolder::of("ann", held_by("ann"), asked_at, answered_at);
        assert_eq!(tenure.role(answered_at), CoordinatorRole::Leading);
        assert!(tenure.leads(asked_at + Duration::from_millis(899)));
        assert!(!tenure.leads(asked_at + Duration::from_millis(900)));
        assert_eq!(tenure.role(asked_at + SECOND), CoordinatorRole::Following(None));
    }

    #[test]
    fn an_answer_that_comes_too_late_makes_nobody_lead() {
        let asked_at = Instant::now();
        let answered_at = asked_at + 10 * SECOND;
        assert!(!LeaseHolder::of("ann", held_by("ann"), asked_at, answered_at).leads(answered_at));
    }

    #[test]
    fn another_s_lease_is_followed_until_it_has_run_out() {
        let now = Instant::now();
        let tenure = LeaseHolder::of("ann", held_by("bob"), now, now);
        assert_eq!(tenure.role(now), CoordinatorRole::Following(Some("bob".into())));
        assert!(!tenure.leads(now));
        assert_eq!(tenure.role(now + SECOND), CoordinatorRole::Following(None));
    }

    #[test]
    fn the_next_look_is_soon_and_at_once_when_another_s_lease_runs_out() {
        let now = Instant::now();
        let tenure = LeaseHolder::of("ann", held_by("bob"), now, now);
        assert_eq!(tenure.next_look(now, SECOND / 10), now + SECOND / 10);
        assert_eq!(tenure.next_look(now, 2 * SECOND), now + SECOND);
        let own = LeaseHolder::of("ann", held_by("ann"), now, now);
        assert_eq!(own.next_look(now, 2 * SECOND), now + 2 * SECOND);
    }
}
