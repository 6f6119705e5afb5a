//! Protections taken out, and deaths at named points: for tests that must see the audit turn red, and for chaos.
//!
//! Only the program `flashsale-node-sabotaged` is built with it. Without the feature every function here does nothing.

use stock::connection::Barrier;

/// Points at which a node can be told to die, by `SABOTAGE=<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortPoint {
    /// `die-after-donate-sent`: the donor may have given; nobody here knows.
    DonateSent,
    /// `die-after-donate`: the tokens are in the channel for good.
    Donated,
    /// `die-after-accept-sent`: the tokens may have arrived.
    AcceptSent,
    /// `die-after-accept`: the tokens have arrived, and no buyer has one.
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

    /// What is handed to a connection is on its way by then.
    const SEND_DELAY: Duration = Duration::from_millis(1);

    static SELECTED: LazyLock<String> = LazyLock::new(|| std::env::var("SABOTAGE").unwrap_or_default());

    /// Dies here, at once and for good, if this is the chosen point.
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

    /// `no-b1` drops the barrier before "purchased", `no-b2` the one before tokens are accepted.
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
