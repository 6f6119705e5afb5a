//! Loops that run in rounds. A round that has begun is finished before the loop stops: a transfer that is cut off
//! leaves its tokens in a channel.

use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Completes when the loops are to stop.
pub(crate) type Stop = Shared<BoxFuture<'static, ()>>;

/// Ticks at once, and then once per period. A late tick delays those after it.
pub(crate) fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Runs a round per period.
pub(crate) async fn every(period: Duration, stop: Stop, mut round: impl AsyncFnMut()) {
    let mut ticks = ticks(period);
    loop {
        tokio::select! {
            biased;
            () = stop.clone() => return,
            _ = ticks.tick() => round().await,
        }
    }
}

/// Runs a round for each value, and only for the latest one if several come during a round.
pub(crate) async fn on_change<T: Clone>(
    mut values: watch::Receiver<T>,
    stop: Stop,
    mut round: impl AsyncFnMut(T),
) {
    loop {
        tokio::select! {
            biased;
            () = stop.clone() => return,
            changed = values.changed() => changed.expect("the sender outlives the loops"),
        }
        let value = values.borrow_and_update().clone();
        round(value).await;
    }
}
