//! Delivers orders to sinks: a message broker, or a webhook. Each event is delivered at least once, under an id that never
//! changes, and events of one shard in their order.
//!
//! A sink has a cursor for each sale in PostgreSQL. One ledger at a time delivers to a sink: the one that holds the sink's
//! lock ([`lease`]). The cursor is moved over the connection that holds the lock, so a ledger that lost it moves nothing.
//!
//! Sinks run beside each other and beside the drain, and in a sink each sale does: an event that is refused stops its own
//! sale only.

mod amqp;
mod cloud_event;
mod cursor;
mod lease;
pub mod replay;
mod retry;
mod runner;
mod settings;
mod signature;
mod sink;
mod webhook;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};

use crate::database::DatabaseSettings;

use self::amqp::Amqp;
use self::runner::Runner;
use self::sink::{Reason, Sink};
use self::webhook::Webhook;

pub use self::settings::FeedSettings;
pub use self::sink::SinkName;

/// The sinks that are configured.
pub struct Feeds(Vec<Arc<dyn Feed>>);

/// The feed of one sink.
trait Feed: Send + Sync {
    fn run(self: Arc<Self>, stop: BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

    fn update_gauges(&self);
}

impl<S: Sink> Feed for Runner<S> {
    fn run(self: Arc<Self>, stop: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        async move { Self::run(&self, stop).await }.boxed()
    }

    fn update_gauges(&self) {
        Self::update_gauges(self);
    }
}

impl Feeds {
    /// The feeds of these settings, which look for new orders once per period.
    ///
    /// # Errors
    /// Fails when a sink needs certificate authorities, and there are none.
    pub fn new(
        settings: &FeedSettings,
        database: &DatabaseSettings,
        period: Duration,
    ) -> anyhow::Result<Self> {
        let mut feeds: Vec<Arc<dyn Feed>> = Vec::new();
        if let Some(amqp) = settings.amqp() {
            let sink = Amqp::new(amqp, settings.timeout())?;
            feeds.push(Arc::new(Runner::new(sink, database.clone(), period)));
        }
        if let Some(webhook) = settings.webhook() {
            let sink = Webhook::new(webhook, settings.timeout())?;
            feeds.push(Arc::new(Runner::new(sink, database.clone(), period)));
        }
        Ok(Self(feeds))
    }

    /// Runs until `stop` completes.
    pub async fn run(&self, stop: impl Future<Output = ()> + Clone + Send + 'static) {
        join_all(self.0.iter().map(|feed| Arc::clone(feed).run(stop.clone().boxed()))).await;
    }

    /// Returns a function that sets all gauges.
    pub fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        let feeds = self.0.clone();
        move || feeds.iter().for_each(|feed| feed.update_gauges())
    }
}

/// Returns the reasons why deliveries fail, as in metrics.
pub(crate) fn reasons() -> impl Iterator<Item = &'static str> {
    Reason::ALL.into_iter().map(Reason::as_str)
}
