//! The record of a sale: whole, and with each protection missing.

use std::collections::BTreeSet;

use model::records::{self, Protection, Records};
use stateright::{Checker, HasDiscoveries, Model};

#[test]
fn records_hold_under_failovers_and_restores() {
    let checker = Records { failovers: 2, missing: None }.checker().threads(2).spawn_dfs().join();
    println!("records: {} states, {} steps", checker.unique_state_count(), checker.state_count());
    checker.assert_properties();
}

fn is_needed(missing: Protection, property: &'static str) {
    let search = |depth| {
        let records = Records { failovers: 2, missing: Some(missing) };
        let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
        records.checker().finish_when(wanted).target_max_depth(depth).spawn_bfs().join()
    };
    let checker = (2..16).map(search).find(|checker| checker.discovery(property).is_some());
    let checker = checker.unwrap_or_else(|| panic!("nothing breaks without {missing:?}"));
    let path = checker.discovery(property).expect("found above");
    println!("without {missing:?}, not so: {property} ({} states)", checker.unique_state_count());
    path.into_actions().iter().for_each(|action| println!("  {action:?}"));
}

#[test]
fn record_is_durable_first() {
    is_needed(Protection::RecordIsDurableFirst, records::TOTAL_IS_DURABLE);
}

#[test]
fn creation_id() {
    is_needed(Protection::CreationId, records::SHARDS_ARE_OWN);
}

#[test]
fn content_is_compared() {
    is_needed(Protection::ContentIsCompared, records::SHARDS_FOLLOW);
}

#[test]
fn record_moves_above() {
    is_needed(Protection::RecordMovesAbove, records::SHARDS_FOLLOW);
}

#[test]
fn restock_keys_are_kept() {
    is_needed(Protection::RestockKeysAreKept, records::TOTAL_IS_DURABLE);
}
