//! Effects of a node's weaker settings: a user may get a wrong answer, but no unit is sold twice.

use std::collections::BTreeSet;

use model::properties::{NO_OWNER_IS_REFUSED, OUT_OF_STOCK_IS_TRUE, PROMISES_HOLD};
use model::protocol::{Protection, Protocol};
use model::sale::SaleModel;
use stateright::{Checker, Model};

/// Searches all states and returns the names of all properties that can break.
fn broken_without(protection: Protection) -> BTreeSet<&'static str> {
    let sale = SaleModel { protocol: Protocol::without(protection), ..SaleModel::complete() };
    let checker = sale.checker().threads(2).spawn_dfs().join();
    let is_failure = |name: &&'static str| checker.model().property(name).expectation.discovery_is_failure();
    checker.discoveries().into_keys().filter(is_failure).collect()
}

/// `DURABILITY=none`: a node answers without waiting for a replica.
#[test]
fn durability_none_breaks_answers_only() {
    let broken = broken_without(Protection::BarrierBeforeAnswer);
    assert_eq!(broken, BTreeSet::from([NO_OWNER_IS_REFUSED, PROMISES_HOLD]));
}

/// `DURABILITY_FALLBACK=primary`: a node does not wait for a replica that the map marks as failed.
#[test]
fn fallback_primary_breaks_promises_only() {
    let broken = broken_without(Protection::FailedReplicasCount);
    assert_eq!(broken, BTreeSet::from([PROMISES_HOLD]));
}

/// Levels are read without a barrier.
#[test]
fn sold_out_without_barrier_breaks_answers_only() {
    let broken = broken_without(Protection::SoldOutIsConfirmed);
    assert_eq!(broken, BTreeSet::from([NO_OWNER_IS_REFUSED, OUT_OF_STOCK_IS_TRUE]));
}
