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

    /// The leader. Without a newer response the lease expires.
    fn leader(&self, now: Instant) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| now < holder.until)
    }

    /// Returns true if this coordinator leads.
    pub fn leads(&self, now: Instant) -> bool {
        self.leader(now).is_some_and(|leader| leader.is_self)
    }

    /// Returns when to check the lease again: after the time `every`, or when another coordinator's lease expires.
    pub fn next_check(&self, now: Instant, every: Duration) -> Instant {
        let other = self.leader(now).filter(|leader| !leader.is_self);
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

    /// The name of the leader, as far as this coordinator knows.
    pub fn leader(&self) -> Option<String> {
        self.holder().leader(Instant::now()).map(|leader| leader.name.clone())
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
        assert!(lease_holder.leads(received_at));
        assert!(lease_holder.leads(requested_at + Duration::from_millis(899)));
        assert!(!lease_holder.leads(requested_at + Duration::from_millis(900)));
        assert_eq!(lease_holder.leader(requested_at + SECOND), None);
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
        assert_eq!(lease_holder.leader(now).unwrap().name, "bob");
        assert!(!lease_holder.leads(now));
        assert_eq!(lease_holder.leader(now + SECOND), None);
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
