//! Limit of the units that one client network may buy in a sale.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rediscluster::{CallError, Cluster};
use stock::ids::UserId;
use stock::places::{NetworkPlaces, Place, PlaceChange};
use stock::sale::SaleConfig;
use tokio::time::timeout;

/// Longest wait for a place.
const PLACE_TIMEOUT: Duration = Duration::from_millis(500);

/// The limit of units, the same for each client network.
pub(super) struct UnitLimits {
    cluster: Arc<Cluster>,
    max: u32,
    /// The latest call got no answer. The log has one line for all such calls in a row.
    is_failing: AtomicBool,
}

/// The limit for the network of one client.
#[derive(Clone, Copy)]
pub struct UnitLimit<'a> {
    limits: &'a UnitLimits,
    address: IpAddr,
}

/// A place of a user, taken before buying.
pub struct TakenPlace<'a> {
    limits: &'a UnitLimits,
    places: NetworkPlaces,
    user: &'a UserId,
}

/// Reasons why a user gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Others of this network have all places.
    Full,
    /// Redis did not answer. A place may have been taken.
    NoAnswer,
}

impl UnitLimits {
    pub(super) fn new(cluster: &Arc<Cluster>, max: u32) -> Self {
        Self { cluster: Arc::clone(cluster), max, is_failing: AtomicBool::new(false) }
    }

    pub(super) fn of_address(&self, address: IpAddr) -> UnitLimit<'_> {
        UnitLimit { limits: self, address }
    }

    /// Changes a place. Tries once, because a repeated change would count twice.
    async fn change(&self, place: Place<'_>) -> Option<bool> {
        let no_reply = |_| Err(CallError::NoReply("Redis took too long".into()));
        let answer = timeout(PLACE_TIMEOUT, self.cluster.poll(place)).await.unwrap_or_else(no_reply);
        let was_failing = self.is_failing.swap(answer.is_err(), Ordering::Relaxed);
        match &answer {
            Err(error) if !was_failing => {
                tracing::warn!(error = %error, "no answer on the units of a network: its buyers are asked to retry");
            }
            Err(error) => tracing::debug!(error = %error, "still no answer on the units of a network"),
            Ok(_) => {}
        }
        answer.ok()
    }
}

impl<'a> UnitLimit<'a> {
    /// Takes a place for one attempt of a user.
    ///
    /// # Errors
    /// Fails when the network has no place left, or Redis does not answer.
    pub async fn take(self, sale: &SaleConfig, user: &'a UserId) -> Result<TakenPlace<'a>, NoPlace> {
        let Self { limits, address } = self;
        let place = TakenPlace { limits, places: NetworkPlaces::of(sale, address, limits.max), user };
        match place.change(PlaceChange::Take).await {
            Some(true) => Ok(place),
            Some(false) => Err(NoPlace::Full),
            None => Err(NoPlace::NoAnswer),
        }
    }
}

impl TakenPlace<'_> {
    /// Gives the place back. If Redis does not answer, the place stays taken.
    pub async fn give_back(self) {
        self.change(PlaceChange::GiveBack).await;
    }

    async fn change(&self, change: PlaceChange) -> Option<bool> {
        self.limits.change(Place { places: &self.places, user: self.user, change }).await
    }
}
