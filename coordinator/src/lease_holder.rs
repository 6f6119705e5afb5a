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
    pub fn of(name: &str, response: Lease, requested_at: Instant, now: Instant) -> Self {
        let Lease { holder, left } = response;
        let holder = holder.map(|holder| match holder == name {
            true => Holder { name: holder, is_self: true, until: requested_at + left - left / MARGIN },
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
    pub fn next_check(&self, now: Instant, every: Duration) -> Instant {
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
    fn lease_counts_from_request_minus_a_margin() {
        let requested_at = Instant::now();
        let received_at = requested_at + SECOND / 2;
        let lease_holder = LeaseHolder::of("ann", held_by("ann"), requested_at, received_at);
        assert_eq!(lease_holder.role(received_at), CoordinatorRole::Leading);
        assert!(lease_holder.leads(requested_at + Duration::from_millis(899)));
        assert!(!lease_holder.leads(requested_at + Duration::from_millis(900)));
        assert_eq!(lease_holder.role(requested_at + SECOND), CoordinatorRole::Following(None));
    }

    #[test]
    fn late_lease_response_does_not_make_leader() {
        let requested_at = Instant::now();
        let received_at = requested_at + 10 * SECOND;
        assert!(!LeaseHolder::of("ann", held_by("ann"), requested_at, received_at).leads(received_at));
    }

    #[test]
    fn other_leader_is_followed_until_its_lease_expires() {
        let now = Instant::now();
        let lease_holder = LeaseHolder::of("ann", held_by("bob"), now, now);
        assert_eq!(lease_holder.role(now), CoordinatorRole::Following(Some("bob".into())));
        assert!(!lease_holder.leads(now));
        assert_eq!(lease_holder.role(now + SECOND), CoordinatorRole::Following(None));
    }

    #[test]
    fn next_check_is_due_when_other_lease_expires() {
        let now = Instant::now();
        let lease_holder = LeaseHolder::of("ann", held_by("bob"), now, now);
        assert_eq!(lease_holder.next_check(now, SECOND / 10), now + SECOND / 10);
        assert_eq!(lease_holder.next_check(now, 2 * SECOND), now + SECOND);
        let own = LeaseHolder::of("ann", held_by("ann"), now, now);
        assert_eq!(own.next_check(now, 2 * SECOND), now + 2 * SECOND);
    }
}
