//! What the weaker settings of a node cost: words, never units.

use std::collections::BTreeSet;

use model::properties::{NO_BUYER_IS_SENT_AWAY, PROMISES_ARE_KEPT, SOLD_OUT_IS_TRUE};
use model::protocol::{Protection, Protocol};
use model::sale::Sale;
use stateright::{Checker, Model};

/// Tries everything and gathers all that can break.
fn broken_without(protection: Protection) -> BTreeSet<&'static str> {
    let sale = Sale { protocol: Protocol::without(protection), ..Sale::sound() };
    let checker = sale.checker().threads(2).spawn_dfs().join();
    let is_failure = |name: &&'static str| checker.model().property(name).expectation.discovery_is_failure();
    checker.discoveries().into_keys().filter(is_failure).collect()
}

/// `DURABILITY=none`: nobody waits for a replica before telling.
#[test]
fn without_durability() {
    let broken = broken_without(Protection::BarrierBeforeTelling);
    assert_eq!(broken, BTreeSet::from([NO_BUYER_IS_SENT_AWAY, PROMISES_ARE_KEPT]));
}

/// `DURABILITY_FALLBACK=primary`: nobody waits for a replica that the map calls failed.
#[test]
fn with_the_fallback_to_the_primary() {
    let broken = broken_without(Protection::FailedReplicasCount);
    assert_eq!(broken, BTreeSet::from([PROMISES_ARE_KEPT]));
}

/// Levels that are read without a barrier.
#[test]
fn without_a_barrier_behind_sold_out() {
    let broken = broken_without(Protection::SoldOutIsConfirmed);
    assert_eq!(broken, BTreeSet::from([NO_BUYER_IS_SENT_AWAY, SOLD_OUT_IS_TRUE]));
}
