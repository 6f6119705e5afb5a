//! A receiver of orders.

use std::fmt::{self, Display, Formatter};
use std::future::Future;
use std::time::Duration;

use clap::ValueEnum;

use super::cloud_event::Event;

/// Name of a kind of sink, of which there is at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SinkName {
    /// A message broker.
    Amqp,
    /// An HTTP endpoint.
    Webhook,
}

impl SinkName {
    /// The name in metrics, logs and the table of cursors.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Webhook => "webhook",
        }
    }
}

impl Display for SinkName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A receiver of orders.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Its name.
    const NAME: SinkName;
    /// Most events of one sale in one delivery.
    const WINDOW_MAX: u32;

    /// Returns true while deliveries can be tried.
    fn is_ready(&self) -> bool;

    /// Returns true while deliveries seem to succeed.
    fn is_connected(&self) -> bool;

    /// Keeps the sink ready. Runs while this ledger delivers to it, and never ends.
    fn maintain(&self) -> impl Future<Output = ()> + Send;

    /// Delivers events of one sale.
    fn deliver(&self, events: &[Event]) -> impl Future<Output = Delivered> + Send;
}

/// Outcome of a delivery.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// Number of delivered events before the first one that may not be delivered.
    pub(crate) count: usize,
    /// Why not all were delivered.
    pub(crate) failure: Option<Failure>,
}

impl Delivered {
    /// No event was delivered.
    pub(crate) fn none(failure: Failure) -> Self {
        Self { count: 0, failure: Some(failure) }
    }
}

/// Why an event was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// Details for the log.
    pub(crate) detail: String,
    /// Shortest time until the next try, as the sink demands.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, detail: impl Display) -> Self {
        Self { reason, detail: detail.to_string(), retry_after: None }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

/// Kind of a failure. It decides when the next try is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The broker takes no messages for now, because its memory or disk is full.
    Blocked,
    /// No queue is bound for the event.
    Unroutable,
    /// The sink cannot take the event now.
    Unavailable,
    /// The sink refuses the event, and will refuse it again.
    Refused,
    /// The endpoint does not exist any more. There is no further try until a person acts.
    Gone,
    /// Events are missing in PostgreSQL.
    Missing,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Blocked,
        Self::Unroutable,
        Self::Unavailable,
        Self::Refused,
        Self::Gone,
        Self::Missing,
    ];

    /// The name in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Blocked => "blocked",
            Self::Unroutable => "unroutable",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Missing => "missing",
        }
    }
}
