//! Skeleton of the interface between the HTTP edge and the lanes.

use stock::calls::{Attempt, Claim};
use stock::ids::{OrderId, SaleId, UserId};
use stock::sale::{EpochMs, SaleConfig};
use std::sync::Arc;

/// The sales this node serves. Cheap to clone.
#[derive(Clone)]
pub struct Sales;

impl Sales {
    /// The sale of this id, where there is one. Waits briefly for one that was created a moment ago.
    pub async fn get(&self, _id: &SaleId) -> Option<Arc<LiveSale>> { todo!() }
    /// Whether the node is able to sell: connected, and the list of sales has been read.
    pub fn ready(&self) -> Result<(), String> { todo!() }
}

/// One sale as this node sees it now.
pub struct LiveSale;

/// What a sale shows to everybody, taken from memory.
#[derive(Clone, Debug)]
pub struct Status {
    /// Product, window, total.
    pub config: Arc<SaleConfig>,
    /// Where it stands in time, by Redis' clock.
    pub phase: Phase,
    /// Units sold, as of the latest snapshot.
    pub sold: u64,
    /// Whether every unit is sold.
    pub sold_out: bool,
    /// Redis' clock now.
    pub server_time: EpochMs,
}

/// Where a sale stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase { Upcoming, Active, Paused, Ended }

/// The answer to a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This attempt has a unit, and it will stay so.
    Purchased(Claim),
    /// Another attempt of this user has a unit, and it will stay so.
    AlreadyPurchased(Claim),
    /// Every unit is sold.
    OutOfStock,
    /// The sale is not selling now.
    NotActive(Phase),
    /// Refused before anything was done: too many are waiting.
    Busy,
    /// It may or may not have been done: repeat the same attempt.
    Unknown(OrderId),
}

/// No answer to a lookup in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl LiveSale {
    /// The config in force.
    pub fn config(&self) -> &SaleConfig { todo!() }
    /// From memory: no call to Redis.
    pub fn status(&self) -> Status { todo!() }
    /// Buys one unit for one user, whatever it takes, within the purchase deadline.
    pub async fn purchase(&self, _attempt: Attempt) -> Outcome { todo!() }
    /// The user's claim.
    pub async fn find(&self, _user: UserId) -> Result<Option<Claim>, Unavailable> { todo!() }
}
