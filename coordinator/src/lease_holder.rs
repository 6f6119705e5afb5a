//! The state of the lease as one coordinator knows it, without I/O.

use std::time::Duration;

use stock::lease::Lease;
use tokio::sync::watch;
use tokio::time::Instant;

/// The holder stops leading a tenth before its lease expires: clocks do not run equally fast, and a round that has
/// started takes a while.
const MARGIN: u32 = 10;

/// The holder of the lease by the latest response, until the lease expires.
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

/// Role of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRole {
    /// It does the work that one coordinator has to do.
    Leading,
    /// Another coordinator leads, or none is known to.
    Following(Option<String>),
}

impl LeaseHolder {
    /// The state after a response to the coordinator `name`. The coordinator's own lease counts from before the
    /// request, because the response may have been on its way for long. For the same reason another coordinator's lease
    /// counts from now.
    pub fn of(name: &str, response: Lease, requested_at: Instant, now: Instant) -> Self {
        let Lease { holder, left } = response;
        let holder = holder.map(|holder| match holder == name {
            true => Holder { name: holder, is_self: true, until: requested_at + left - left / MARGIN },
            false => Holder { name: holder, is_self: false, until: now + left },
        });
        Self { holder }
    }

    /// The role of this coordinator. Without a newer response the lease expires.
    pub fn role(&self, now: Instant) -> CoordinatorRole {
        match self.holder.as_ref().filter(|holder| now < holder.until) {
            Some(Holder { is_self: true, .. }) => CoordinatorRole::Leading,
            other => CoordinatorRole::Following(other.map(|holder| holder.name.clone())),
        }
    }

    /// Returns true if this coordinator leads.
    pub fn leads(&self, now: Instant) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.is_self && now < holder.until)
    }

    /// Returns when to check the lease again: after the time `every`, or when another coordinator's lease expires.
    pub fn next_check(&self, now: Instant, every: Duration) -> Instant {
        let other = self.holder.as_ref().filter(|holder| !holder.is_self && now < holder.until);
        other.map_or(now + every, |other| other.until.min(now + every))
    }
}

/// The role of a coordinator among the others. It does not lead at first.
pub struct Leadership {
    name: String,
    lease_holder: watch::Sender<LeaseHolder>,
}

impl Leadership {
    pub(crate) fn new(name: String) -> Self {
        Self { name, lease_holder: watch::Sender::default() }
    }

    /// The name of this coordinator.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if this coordinator leads now.
    pub fn leads(&self) -> bool {
        self.holder().leads(Instant::now())
    }

    /// The current role of this coordinator.
    pub fn role(&self) -> CoordinatorRole {
        self.holder().role(Instant::now())
    }

    /// The name of the leader, as far as this coordinator knows.
    pub fn leader(&self) -> Option<String> {
        match self.role() {
            CoordinatorRole::Leading => Some(self.name.clone()),
            CoordinatorRole::Following(leader) => leader,
        }
    }

    pub(crate) fn holder(&self) -> watch::Ref<'_, LeaseHolder> {
        self.lease_holder.borrow()
    }

    pub(crate) fn update(&self, lease_holder: LeaseHolder) {
        self.lease_holder.send_replace(lease_holder);
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
