//! Removes protections or kills the process at named points. Used by chaos, and by tests that expect the audit to fail.
//!
//! Only `flashsale-node-sabotaged` is built with the feature `sabotage`. Without it, every function here does nothing.

use rediscluster::Barrier;

/// Points at which `SABOTAGE=<name>` kills the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortPoint {
    /// `die-after-donate-sent`: the donor may or may not have donated. This node does not know.
    DonateSent,
    /// `die-after-donate`: the tokens are durably in the channel.
    Donated,
    /// `die-after-accept-sent`: the tokens may have arrived.
    AcceptSent,
    /// `die-after-accept`: the tokens have arrived, and no buyer has one yet.
    Accepted,
}

#[cfg(not(feature = "sabotage"))]
mod effect {
    use super::{AbortPoint, Barrier};

    #[inline]
    pub(crate) fn abort_at(_: AbortPoint) {}

    #[inline]
    pub(crate) fn weaken(barrier: Barrier, _donates: bool) -> Barrier {
        barrier
    }
}

#[cfg(feature = "sabotage")]
mod effect {
    use std::sync::LazyLock;
    use std::thread;
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{AbortPoint, Barrier};

    /// By this time, bytes handed to a connection have been sent.
    const SEND_DELAY: Duration = Duration::from_millis(1);

    static SELECTED: LazyLock<String> = LazyLock::new(|| std::env::var("SABOTAGE").unwrap_or_default());

    /// Kills the process with SIGKILL if this point is selected.
    pub(crate) fn abort_at(point: AbortPoint) {
        if *SELECTED == point.name() {
            if point.is_delayed() {
                thread::spawn(|| {
                    thread::sleep(SEND_DELAY);
                    abort();
                });
            } else {
                abort();
            }
        }
    }

    /// `no-b1` drops the barrier before "purchased". `no-b2` drops the barrier before tokens are accepted.
    pub(crate) fn weaken(barrier: Barrier, donates: bool) -> Barrier {
        match SELECTED.as_str() {
            "no-b1" if !donates => Barrier::None,
            "no-b2" if donates => Barrier::None,
            _ => barrier,
        }
    }

    fn abort() {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    }

    impl AbortPoint {
        fn name(self) -> &'static str {
            match self {
                Self::DonateSent => "die-after-donate-sent",
                Self::Donated => "die-after-donate",
                Self::AcceptSent => "die-after-accept-sent",
                Self::Accepted => "die-after-accept",
            }
        }

        fn is_delayed(self) -> bool {
            matches!(self, Self::DonateSent | Self::AcceptSent)
        }
    }
}

pub(crate) use effect::{abort_at, weaken};
