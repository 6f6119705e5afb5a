//! The work for one sink: obtains the lock, then delivers the events of all sales, each sale on its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::database::DatabaseSettings;
use crate::metrics;

use super::cursor::{Lag, SaleKey};
use super::lease::{Lease, LeaseError};
use super::retry;
use super::sink::{Delivered, Failure, Reason, Sink};

/// Most sales in delivery at once. With the longest window this bounds the memory of a sink.
const SALES_AT_ONCE: usize = 8;
/// Longest time between two looks for new orders, for any period of draining: the session of a ledger that does
/// not look is ended.
const PERIOD_MAX: Duration = Duration::from_secs(2);
/// First and longest pause until this ledger tries again to deliver.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A ledger that delivered for this long is not one that fails again and again. One that cannot move its cursor delivers the
/// same events with each try.
const STABLE: Duration = Duration::from_secs(30);
/// Longest time for deliveries in flight on shutdown. Events that are cut off are delivered again.
const GRACE: Duration = Duration::from_secs(3);

/// Delivers to one sink.
pub(crate) struct Runner<S> {
    sink: S,
    database: DatabaseSettings,
    period: Duration,
    shown: Mutex<Option<Shown>>,
}

/// The figures of a sink while this ledger delivers to it: by sale, the number of events behind, and the age of the oldest.
type Shown = BTreeMap<String, (i64, Duration)>;

/// The state of one sale.
struct SaleState {
    lag: Lag,
    /// Most events in the next delivery. One after a failure, so that an event that fails again is the only one that
    /// is delivered again.
    window: u32,
    failures: u32,
    /// Kind of the latest failure, until a delivery succeeds.
    failing: Option<Reason>,
    /// When the sale may be tried; `None` when only a person changes anything.
    due_at: Option<Instant>,
    /// Sales that waited longest come first.
    tried_at: Instant,
    is_running: bool,
}

/// A finished delivery.
struct Attempt {
    sale: SaleKey,
    from: i64,
    moved: Moved,
    failure: Option<Failure>,
}

/// A finished piece of work. All pieces share a session of PostgreSQL, whose answers come in turn: an answer that is not taken
/// holds up all others. So they are awaited together.
enum Done {
    Attempt(Attempt),
    Lags(Vec<(SaleKey, Lag)>),
}

/// Move of the cursor after a delivery.
#[derive(Clone, Copy)]
enum Moved {
    Not,
    To {
        position: i64,
        moved_at: i64,
    },
    /// A person moved it in the meantime.
    ByAPerson,
}

impl<S: Sink> Runner<S> {
    /// Delivers to this sink, with a look for new orders per period.
    pub(crate) fn new(sink: S, database: DatabaseSettings, period: Duration) -> Self {
        metrics::feed::register(S::NAME.as_str());
        Self { sink, database, period: period.min(PERIOD_MAX), shown: Mutex::default() }
    }

    /// Sets all gauges.
    pub(crate) fn update_gauges(&self) {
        if let Some(sales) = &*self.shown() {
            metrics::feed::show(S::NAME.as_str(), self.sink.is_connected(), sales);
        }
    }

    /// Runs until `stop` completes.
    pub(crate) async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let stop = stop.shared();
        let (mut tries, mut logged) = (0, None);
        loop {
            let obtained = tokio::select! {
                () = stop.clone() => return,
                obtained = Lease::obtain(&self.database, S::NAME) => obtained,
            };
            let failure = match obtained {
                Ok(lease) => {
                    if tries == 0 {
                        tracing::info!(sink = %S::NAME, "this ledger delivers");
                    }
                    let started = Instant::now();
                    let ended = tokio::select! {
                        ended = self.deliver_all(&lease, stop.clone()) => ended,
                        () = self.sink.maintain() => Ok(()),
                    };
                    *self.shown() = None;
                    if started.elapsed() > STABLE {
                        (tries, logged) = (0, None);
                    }
                    ended.err()
                }
                Err(error) => Some(error),
            };
            let Some(error) = failure else { return };
            let reason = format!("{:#}", anyhow::Error::from(error));
            if logged.as_ref() != Some(&reason) {
                tracing::warn!(sink = %S::NAME, reason, "nothing is delivered by this ledger");
                logged = Some(reason);
            }
            tries += 1;
            tokio::select! {
                () = stop.clone() => return,
                () = sleep(retry::exponential(RETRY.0, RETRY.1, tries)) => {}
            }
        }
    }

    /// Delivers all sales until `stop` completes, or the lock is lost.
    async fn deliver_all(
        &self,
        lease: &Lease,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), LeaseError> {
        let mut stop = std::pin::pin!(stop);
        let mut sales: BTreeMap<SaleKey, SaleState> = BTreeMap::new();
        let mut running: FuturesUnordered<BoxFuture<'_, Result<Done, LeaseError>>> = FuturesUnordered::new();
        let (mut deliveries, mut is_looking) = (0, false);
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => {
                    let finishing = running.try_for_each(async |_| Ok(()));
                    return timeout(GRACE, finishing).await.unwrap_or(Ok(()));
                }
                Some(done) = running.next() => match done? {
                    Done::Attempt(attempt) => {
                        deliveries -= 1;
                        if let Some(state) = sales.get_mut(&attempt.sale) {
                            state.note::<S>(&attempt);
                        }
                    }
                    Done::Lags(lags) => {
                        is_looking = false;
                        follow(&mut sales, lags);
                        *self.shown() = Some(shown(&sales));
                    }
                },
                _ = ticks.tick(), if !is_looking => {
                    is_looking = true;
                    running.push(lease.lags(S::NAME).map_ok(Done::Lags).boxed());
                }
            }
            for (sale, state) in self.due(&mut sales, deliveries) {
                deliveries += 1;
                let delivery = self.deliver(lease, sale, state.lag.position, state.window);
                running.push(delivery.map_ok(Done::Attempt).boxed());
            }
        }
    }

    /// Takes sales that can be tried now, as far as there is room beside those in delivery.
    fn due<'a>(
        &self,
        sales: &'a mut BTreeMap<SaleKey, SaleState>,
        running: usize,
    ) -> Vec<(SaleKey, &'a SaleState)> {
        if !self.sink.is_ready() {
            return Vec::new();
        }
        let now = Instant::now();
        let mut due: Vec<_> = sales.iter_mut().filter(|(_, state)| state.is_due(now)).collect();
        due.sort_by_key(|(_, state)| state.tried_at);
        let room = SALES_AT_ONCE.saturating_sub(running);
        let taken = due.into_iter().take(room).map(|(sale, state)| {
            (state.is_running, state.tried_at) = (true, now);
            (sale.clone(), &*state)
        });
        taken.collect()
    }

    /// Delivers the next events of a sale, and moves its cursor.
    async fn deliver(
        &self,
        lease: &Lease,
        sale: SaleKey,
        from: i64,
        window: u32,
    ) -> Result<Attempt, LeaseError> {
        let events = lease.events(&sale, from, window).await?;
        let Delivered { count, failure } = match events.is_empty() {
            true => {
                Delivered::none(Failure::new(Reason::Missing, "PostgreSQL has no order after the cursor"))
            }
            false => self.sink.deliver(&events).await,
        };
        let delivered = &events[..count];
        let moved = match delivered.last() {
            Some(last) => match lease.advance(S::NAME, &sale, from, last.position).await? {
                Some(moved_at) => Moved::To { position: last.position, moved_at },
                None => Moved::ByAPerson,
            },
            None => Moved::Not,
        };
        metrics::feed::delivered(
            S::NAME.as_str(),
            &sale.sale,
            delivered.iter().map(|event| event.purchased_at),
        );
        Ok(Attempt { sale, from, moved, failure })
    }

    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SaleState {
    fn new(lag: Lag) -> Self {
        let now = Instant::now();
        Self {
            lag,
            window: 1,
            failures: 0,
            failing: None,
            due_at: Some(now),
            tried_at: now,
            is_running: false,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_behind = self.lag.position < self.lag.latest;
        is_behind && !self.is_running && self.due_at.is_some_and(|due_at| due_at <= now)
    }

    /// Takes what PostgreSQL says. A cursor that was moved by a person is tried at once.
    fn update(&mut self, lag: Lag) {
        if lag.moved_at < self.lag.moved_at {
            // It was read before the latest delivery moved the cursor.
            (self.lag.latest, self.lag.age) = (lag.latest, lag.age);
            return;
        }
        if self.failing.is_some() && lag.moved_at > self.lag.moved_at {
            (self.failures, self.due_at) = (0, Some(Instant::now()));
        }
        self.lag = lag;
    }

    /// Takes the outcome of a delivery.
    fn note<S: Sink>(&mut self, attempt: &Attempt) {
        self.is_running = false;
        match attempt.moved {
            // The next look finds the cursor where the person moved it.
            Moved::ByAPerson => {
                self.lag.position = self.lag.latest;
                return;
            }
            // A look beside this delivery may have found the cursor at a place that a person chose.
            Moved::To { position, moved_at } if self.lag.position == attempt.from => {
                (self.lag.position, self.lag.moved_at) = (position, moved_at);
            }
            Moved::To { .. } | Moved::Not => {}
        }
        let SaleKey { sale, creation } = &attempt.sale;
        match &attempt.failure {
            None => {
                self.window = (self.window * 2).min(S::WINDOW_MAX);
                (self.failures, self.due_at) = (0, Some(Instant::now()));
                if self.failing.take().is_some() {
                    tracing::info!(sink = %S::NAME, sale.id = sale, "orders are delivered again");
                }
            }
            Some(failure) => {
                let is_new = self.failing != Some(failure.reason);
                self.failures = if matches!(attempt.moved, Moved::Not) { self.failures + 1 } else { 1 };
                self.window = 1;
                let pause = retry::pause(failure, self.failures);
                self.due_at = pause.map(|pause| Instant::now() + pause);
                self.failing = Some(failure.reason);
                metrics::feed::failed(S::NAME.as_str(), failure.reason.as_str());
                if is_new {
                    let position = self.lag.position + 1;
                    let next_try = pause.map_or("when a person acts", |_| "after a pause");
                    tracing::warn!(sink = %S::NAME, sale.id = sale, creation, position, %failure, next_try,
                        "orders are not delivered");
                }
            }
        }
    }
}

/// Takes what PostgreSQL says about all sales. Sales that it no longer names are complete.
fn follow(sales: &mut BTreeMap<SaleKey, SaleState>, lags: Vec<(SaleKey, Lag)>) {
    let listed: BTreeMap<SaleKey, Lag> = lags.into_iter().collect();
    sales.retain(|sale, state| state.is_running || listed.contains_key(sale));
    for (sale, lag) in listed {
        sales.entry(sale).or_insert_with(|| SaleState::new(lag)).update(lag);
    }
}

/// Returns the figures by name of sale.
fn shown(sales: &BTreeMap<SaleKey, SaleState>) -> Shown {
    let mut shown = Shown::new();
    for (SaleKey { sale, .. }, SaleState { lag, .. }) in sales {
        let (behind, age) = shown.entry(sale.clone()).or_default();
        *behind += lag.latest - lag.position;
        *age = (*age).max(lag.age);
    }
    shown
}
