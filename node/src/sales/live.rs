//! A sale that this node serves. Purchases and lookups are retried until the answer is definite.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rediscluster::{CallError, backoff};
use stock::calls::{Attempt, BuyOutcome, Claim};
use stock::ids::{OrderId, UserId};
use stock::layout::Shard;
use stock::sale::SaleConfig;
use tokio::sync::watch;
use tokio::time::timeout;

use super::steal::Steals;
use super::view::{Phase, SaleView, Status};
use crate::lanes::{LaneError, Lanes, ShardAnswer};
use crate::limits::{NoPlace, UnitLimit};
use crate::metrics::SaleCounters;
use crate::settings::LaneSettings;

/// A sale and the node's current view of it.
pub struct LiveSale {
    lanes: Arc<Lanes>,
    shards: Arc<[Arc<Shard>]>,
    view: watch::Sender<Arc<SaleView>>,
    steals: Steals,
    purchase_timeout: Duration,
    counters: SaleCounters,
    /// Receivers of the view that this sale has itself.
    own_receivers: usize,
    /// A request has asked for the sale since the last look.
    was_asked_for: AtomicBool,
}

/// Outcome of a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This attempt has a unit. The answer is final.
    Purchased(Claim),
    /// Another attempt of this user has a unit. The answer is final.
    AlreadyPurchased(Claim),
    /// Every unit is sold, and this user has none.
    OutOfStock,
    /// The sale is not selling now.
    NotActive(Phase),
    /// Nothing was bought: the queue is full, or the last tokens are still in channels. The client should retry.
    Busy,
    /// The client's network has all units that it may have, and this user has none.
    NetworkFull,
    /// The purchase may have been made. The client should repeat the same attempt.
    Unknown(OrderId),
}

/// No answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// Why a lookup has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The lane is full, or no answer came in time.
    Unavailable,
    /// The claims of the sale have left Redis.
    Archived,
}

impl From<Unavailable> for LookupError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl LiveSale {
    pub(super) fn start(view: SaleView, lanes: Arc<Lanes>, settings: &LaneSettings) -> Arc<Self> {
        let shards: Arc<[Arc<Shard>]> = view.sale.shards().iter().cloned().map(Arc::new).collect();
        let counters = SaleCounters::new(view.sale.id());
        let view = watch::Sender::new(Arc::new(view));
        let steals =
            Steals::new(Arc::clone(&lanes), Arc::clone(&shards), view.subscribe(), settings.queue_max);
        let purchase_timeout = settings.purchase_timeout;
        let (own_receivers, was_asked_for) = (view.receiver_count(), AtomicBool::default());
        let sale =
            Self { lanes, shards, view, steals, purchase_timeout, counters, own_receivers, was_asked_for };
        Arc::new(sale)
    }

    /// Notes that a request asks for the sale.
    pub(super) fn ask(&self) {
        // The load keeps the requests of all cores from writing to one place.
        if !self.was_asked_for.load(Ordering::Relaxed) {
            self.was_asked_for.store(true, Ordering::Relaxed);
        }
    }

    /// Returns true if the sale is used: a request has asked for it since this was called before, or clients listen to its
    /// events.
    pub(super) fn take_use(&self) -> bool {
        self.was_asked_for.swap(false, Ordering::Relaxed) || self.view.receiver_count() > self.own_receivers
    }

    /// Replaces the view by a newer one.
    pub(super) fn update(&self, view: SaleView) {
        if let Some(snapshot) = &view.snapshot {
            self.steals.update_levels(snapshot);
        }
        self.view.send_replace(Arc::new(view));
    }

    /// Returns a receiver of this sale's views. It closes when the node no longer serves the sale.
    pub fn views(&self) -> watch::Receiver<Arc<SaleView>> {
        self.view.subscribe()
    }

    pub(super) fn view(&self) -> Arc<SaleView> {
        Arc::clone(&self.view.borrow())
    }

    pub(super) async fn close(&self) {
        self.steals.close().await;
    }

    /// Returns the config in force.
    pub fn config(&self) -> Arc<SaleConfig> {
        Arc::clone(&self.view.borrow().sale.config)
    }

    /// Returns the status from memory, without a call to Redis.
    pub fn status(&self) -> Status {
        self.view.borrow().status()
    }

    /// Buys one unit for one user, within the limit of the client's network, if any. Retries within the purchase timeout.
    pub async fn purchase(&self, attempt: &Arc<Attempt>, limit: Option<UnitLimit<'_>>) -> Outcome {
        let mut state = AttemptState::default();
        let outcome = match (self.view().refusal(), limit) {
            (Some(phase), _) => Outcome::NotActive(phase),
            (None, None) => self.purchase_within_timeout(attempt, &mut state).await,
            // Boxed, so that the futures of all other purchases stay small.
            (None, Some(limit)) => Box::pin(self.purchase_within_limit(attempt, limit, &mut state)).await,
        };
        self.counters.answered(&outcome, state.waited_for_tokens);
        outcome
    }

    /// Takes a place of the client's network first. The place is given back unless the attempt has a unit, or may have one.
    async fn purchase_within_limit(
        &self,
        attempt: &Arc<Attempt>,
        limit: UnitLimit<'_>,
        state: &mut AttemptState,
    ) -> Outcome {
        let place = match limit.take(&self.config(), &attempt.user).await {
            Ok(place) => place,
            Err(NoPlace::Full) => return self.outcome_without_place(attempt).await,
            Err(NoPlace::NoAnswer) => return Outcome::Busy,
        };
        let outcome = self.purchase_within_timeout(attempt, state).await;
        if !matches!(outcome, Outcome::Purchased(_) | Outcome::Unknown(_)) {
            place.give_back().await;
        }
        outcome
    }

    /// A user who has a unit gets the same answer as before.
    async fn outcome_without_place(&self, attempt: &Attempt) -> Outcome {
        match self.find(attempt.user.clone()).await {
            Ok(Some(claim)) if claim.order == attempt.order => Outcome::Purchased(claim),
            Ok(Some(claim)) => Outcome::AlreadyPurchased(claim),
            Ok(None) => Outcome::NetworkFull,
            Err(_) => Outcome::Busy,
        }
    }

    async fn purchase_within_timeout(&self, attempt: &Arc<Attempt>, state: &mut AttemptState) -> Outcome {
        let order = attempt.order;
        let result = timeout(self.purchase_timeout, self.buy(attempt, state)).await;
        match result {
            Ok(Some(outcome)) => outcome,
            // The timeout passed, or the lane is full.
            Ok(None) | Err(_) if state.is_unresolved() => Outcome::Unknown(order),
            Ok(None) | Err(_) => Outcome::Busy,
        }
    }

    /// Retries until the answer is definite. Returns `None` when another try cannot help now.
    async fn buy(&self, attempt: &Arc<Attempt>, state: &mut AttemptState) -> Option<Outcome> {
        let user = &attempt.user;
        let home = self.view().sale.ring().home(user);
        for tries in 0.. {
            // This must be read before the call. A later `empty` then proves that all units were claimed, and none by
            // this user, unless the shard knows of a change that this view does not.
            let view = self.view();
            let sold_out = view.sold_out();
            let answer = state.track(self.lanes.buy(&self.shards[home.index()], Arc::clone(attempt))).await;
            let outcome = answer.map(|ShardAnswer { outcome, version }| {
                view.saw_version(version);
                outcome
            });
            match outcome {
                Ok(BuyOutcome::Bought(claim) | BuyOutcome::Repeat(claim)) => {
                    return Some(Outcome::Purchased(claim));
                }
                Ok(BuyOutcome::Duplicate(claim)) => return Some(Outcome::AlreadyPurchased(claim)),
                Ok(BuyOutcome::NotOpen) => return Some(Outcome::NotActive(self.view().refused_phase())),
                Ok(BuyOutcome::Empty) if sold_out && view.sold_out() => return Some(Outcome::OutOfStock),
                Ok(BuyOutcome::Empty) => {
                    state.waited_for_tokens = true;
                    self.steals.wait_for_tokens(home, user).await.ok()?;
                }
                Err(LaneError::Full) => return None,
                Err(LaneError::Call(error)) => self.pause_after(&error, tries).await?,
            }
        }
        unreachable!("the range of tries has no end")
    }

    /// Returns the user's claim, if any.
    ///
    /// # Errors
    /// Fails when the lane is full, no answer comes within the purchase timeout, or the sale is archived.
    pub async fn find(&self, user: UserId) -> Result<Option<Claim>, LookupError> {
        if self.view().is_archived() {
            return Err(LookupError::Archived);
        }
        let found = timeout(self.purchase_timeout, self.find_until_answered(user)).await;
        Ok(found.map_err(|_| LookupError::Unavailable)??)
    }

    async fn find_until_answered(&self, user: UserId) -> Result<Option<Claim>, Unavailable> {
        let home = self.view().sale.ring().home(&user);
        for tries in 0.. {
            match self.lanes.find(&self.shards[home.index()], user.clone()).await {
                Ok(claim) => return Ok(claim),
                Err(LaneError::Full) => return Err(Unavailable),
                Err(LaneError::Call(error)) => self.pause_after(&error, tries).await.ok_or(Unavailable)?,
            }
        }
        unreachable!("the range of tries has no end")
    }

    /// Waits before the next try. Returns `None` when the error is permanent.
    async fn pause_after(&self, error: &CallError, tries: u32) -> Option<()> {
        if !error.is_transient() {
            return None;
        }
        tokio::time::sleep(backoff(tries)).await;
        Some(())
    }
}

/// State of one purchase request, kept outside the future that the purchase timeout may drop.
#[derive(Default)]
struct AttemptState {
    /// The home shard was empty, so the buyer waited for tokens.
    waited_for_tokens: bool,
    /// A call to Redis is in flight.
    call_in_flight: bool,
    /// An earlier call got no reply, so it may have bought. Only a definite answer of the lane settles that.
    reply_lost: bool,
}

impl AttemptState {
    /// Awaits a call and records whether it was answered.
    async fn track<T>(&mut self, call: impl Future<Output = Result<T, LaneError>>) -> Result<T, LaneError> {
        self.call_in_flight = true;
        let answer = call.await;
        self.call_in_flight = false;
        if let Err(LaneError::Call(error)) = &answer {
            self.reply_lost |= error.is_unknown();
        }
        answer
    }

    /// Returns true when the purchase may have been made although no reply confirmed it.
    fn is_unresolved(&self) -> bool {
        self.call_in_flight || self.reply_lost
    }
}
