//! The record of a sale, complete and with each protection removed.

use std::collections::BTreeSet;
use std::time::Instant;

use model::records::{RecordProtection, RecordsModel};
use stateright::{Checker, HasDiscoveries, Model};

fn holds(name: &str, records: RecordsModel) {
    let began = Instant::now();
    let checker = records.checker().threads(2).spawn_dfs().join();
    println!(
        "{name}: {} states, {} steps, longest path {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

#[test]
fn records_hold_during_failovers() {
    holds(
        "records, two failovers",
        RecordsModel { coordinators: 3, failovers: 2, losses: 0, shard_losses: 0, missing: None },
    );
}

#[test]
fn records_hold_when_a_record_is_lost() {
    holds(
        "records, one failover and one loss",
        RecordsModel { coordinators: 2, failovers: 1, losses: 1, shard_losses: 0, missing: None },
    );
}

#[test]
fn records_hold_with_three_coordinators() {
    holds(
        "records, three coordinators and one loss",
        RecordsModel { coordinators: 3, failovers: 0, losses: 1, shard_losses: 0, missing: None },
    );
}

#[test]
fn records_hold_when_a_shard_is_lost() {
    holds(
        "records, one failover and one lost shard",
        RecordsModel { coordinators: 2, failovers: 1, losses: 0, shard_losses: 1, missing: None },
    );
}

/// Searches with increasing depth, so that the counterexample is a shortest one.
fn is_needed(missing: RecordProtection, losses: u8) {
    let coordinators = if missing == RecordProtection::RestoreEndsOldReadings { 3 } else { 2 };
    let shard_losses = u8::from(missing == RecordProtection::Incarnations);
    let failovers = 1 - losses;
    let began = Instant::now();
    let property = missing.keeps();
    let search = |depth| {
        let records = RecordsModel { coordinators, failovers, losses, shard_losses, missing: Some(missing) };
        let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
        records.checker().finish_when(wanted).target_max_depth(depth).spawn_bfs().join()
    };
    let checker = (2..32).map(search).find(|checker| checker.discovery(property).is_some());
    let checker = checker.unwrap_or_else(|| panic!("nothing breaks without {missing:?}"));
    let path = checker.discovery(property).expect("found above");
    let (states, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f64());
    println!("without {missing:?}, broken: {property} ({states} states, {seconds:.2} s)");
    path.into_actions().iter().for_each(|action| println!("  {action}"));
}

/// Checks a protection that is needed only when a durable record is lost. Failovers alone break nothing without it.
fn is_needed_when_a_record_is_lost(missing: RecordProtection) {
    holds(
        &format!("without {missing:?}, nothing is lost"),
        RecordsModel { coordinators: 2, failovers: 1, losses: 0, shard_losses: 0, missing: Some(missing) },
    );
    is_needed(missing, 1);
}

#[test]
fn durable_record_is_needed() {
    is_needed(RecordProtection::RecordIsDurableFirst, 0);
}

#[test]
fn base_version_is_needed() {
    is_needed(RecordProtection::BasedOnVersion, 0);
}

#[test]
fn confirmation_of_every_shard_is_needed() {
    is_needed(RecordProtection::EveryShardConfirms, 0);
}

#[test]
fn refusal_of_older_versions_is_needed() {
    is_needed(RecordProtection::OlderVersionIsRefused, 0);
}

#[test]
fn creation_id_is_needed() {
    is_needed_when_a_record_is_lost(RecordProtection::CreationId);
}

#[test]
fn incarnations_are_needed() {
    holds(
        "without Incarnations, no shard is lost",
        RecordsModel {
            coordinators: 2,
            failovers: 1,
            losses: 0,
            shard_losses: 0,
            missing: Some(RecordProtection::Incarnations),
        },
    );
    is_needed(RecordProtection::Incarnations, 0);
}

#[test]
fn content_comparison_is_needed() {
    is_needed_when_a_record_is_lost(RecordProtection::ContentIsCompared);
}

#[test]
fn raised_record_version_is_needed() {
    is_needed_when_a_record_is_lost(RecordProtection::RecordVersionIsRaised);
}

#[test]
fn restock_keys_are_needed() {
    is_needed(RecordProtection::RestockKeysAreKept, 0);
}

#[test]
fn end_of_old_readings_is_needed() {
    is_needed(RecordProtection::RestoreEndsOldReadings, 1);
}
