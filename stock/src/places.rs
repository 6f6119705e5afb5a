//! Places of client networks: the units of a sale that one network may buy, if there is such a limit.
//!
//! A user takes a place before buying, and gives it back if that bought nothing. So a network never buys more than it has
//! places, as long as Redis keeps them: a failover may forget some. An attempt whose outcome stays unknown keeps its
//! place, so a network may get fewer units than it has places.

use std::net::IpAddr;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, EpochMs, Slot};

use crate::functions::{self, Function};
use crate::ids::UserId;
use crate::layout::PlaceKeys;
use crate::sale::SaleConfig;

/// Places of a /56, for each place of a /64: some customers have a /56, and their devices several /64.
const PLACES_OF_56: u32 = 4;
/// Places of a /48, for each place of a /64.
const PLACES_OF_48: u32 = 16;
/// Time for which places are kept after the end of the sale. An end that is moved by more than this may free places.
const KEPT_AFTER_END_MS: EpochMs = 7 * 24 * 3_600 * 1_000;

/// The places of a client network in one sale.
#[derive(Clone, Debug)]
pub struct NetworkPlaces {
    keys: PlaceKeys,
    /// The number of places of each key.
    max: Vec<u32>,
    kept_until: EpochMs,
}

/// Takes a place of a user, or gives it back. See `place.lua`. The answer is true if the user has a place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The places of the user's network.
    pub places: &'a NetworkPlaces,
    /// The user.
    pub user: &'a UserId,
    /// Direction of the change.
    pub change: PlaceChange,
}

/// Direction of a change of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceChange {
    /// An attempt to buy begins.
    Take,
    /// The attempt has ended without a unit.
    GiveBack,
}

impl NetworkPlaces {
    /// Returns the places of the network of this address, at `max` places for an IPv4 address or a /64.
    pub fn of(sale: &SaleConfig, address: IpAddr, max: u32) -> Self {
        let wider = [1, PLACES_OF_56, PLACES_OF_48].map(|places| max.saturating_mul(places));
        let keys = PlaceKeys::new(sale, address);
        let max = wider[..keys.names.len()].to_vec();
        Self { keys, max, kept_until: sale.window.ends_at.saturating_add(KEPT_AFTER_END_MS) }
    }
}

impl Call for Place<'_> {
    type Answer = bool;

    fn slot(&self) -> Slot {
        self.places.keys.slot
    }

    fn command(&self) -> Cmd {
        let Self { places: NetworkPlaces { keys, max, kept_until }, user, change } = self;
        let names: Vec<&str> = keys.names.iter().map(String::as_str).collect();
        let mut cmd = functions::fcall(Function::Place, &names);
        let change = match change {
            PlaceChange::Take => "take",
            PlaceChange::GiveBack => "give",
        };
        cmd.arg(user.as_str()).arg(change).arg(kept_until).arg(max);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<bool, CallError> {
        Ok(from_redis_value(reply)?)
    }
}
