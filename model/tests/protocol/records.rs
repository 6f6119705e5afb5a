//! The record of a sale, complete and with each protection removed.

use model::records::{RecordProtection, RecordsModel};

use crate::{breaks, holds};

const THREE_COORDINATORS: RecordsModel =
    RecordsModel { coordinators: 3, failovers: 0, losses: 0, shard_losses: 0, missing: None };
const ONE_FAILOVER: RecordsModel = RecordsModel { coordinators: 2, failovers: 1, ..THREE_COORDINATORS };

#[test]
fn records_hold_during_failovers() {
    holds("records, two failovers", RecordsModel { failovers: 2, ..THREE_COORDINATORS });
}

#[test]
fn records_hold_when_a_record_is_lost() {
    holds("records, one failover and one loss", RecordsModel { losses: 1, ..ONE_FAILOVER });
}

#[test]
fn records_hold_with_three_coordinators() {
    holds("records, three coordinators and one loss", RecordsModel { losses: 1, ..THREE_COORDINATORS });
}

#[test]
fn records_hold_when_a_shard_is_lost() {
    holds("records, one failover and one lost shard", RecordsModel { shard_losses: 1, ..ONE_FAILOVER });
}

fn is_needed(missing: RecordProtection, losses: u8) {
    let coordinators = if missing == RecordProtection::RestoreEndsOldReadings { 3 } else { 2 };
    let shard_losses = u8::from(missing == RecordProtection::Incarnations);
    breaks(missing, missing.keeps(), || RecordsModel {
        coordinators,
        failovers: 1 - losses,
        losses,
        shard_losses,
        missing: Some(missing),
    });
}

/// Checks a protection that is needed only when data is lost. Failovers alone break nothing without it.
fn is_needed_for_losses(missing: RecordProtection, losses: u8) {
    let without = RecordsModel { missing: Some(missing), ..ONE_FAILOVER };
    holds(&format!("without {missing:?}, nothing is lost"), without);
    is_needed(missing, losses);
}

macro_rules! needed {
    ($($test:ident: $check:ident($protection:ident, $losses:literal);)+) => {
        $(#[test]
        fn $test() {
            $check(RecordProtection::$protection, $losses);
        })+
    };
}

needed! {
    durable_record_is_needed: is_needed(RecordIsDurableFirst, 0);
    base_version_is_needed: is_needed(BasedOnVersion, 0);
    confirmation_of_every_shard_is_needed: is_needed(EveryShardConfirms, 0);
    refusal_of_older_versions_is_needed: is_needed(OlderVersionIsRefused, 0);
    creation_id_is_needed: is_needed_for_losses(CreationId, 1);
    incarnations_are_needed: is_needed_for_losses(Incarnations, 0);
    content_comparison_is_needed: is_needed_for_losses(ContentIsCompared, 1);
    raised_record_version_is_needed: is_needed_for_losses(RecordVersionIsRaised, 1);
    restock_keys_are_needed: is_needed(RestockKeysAreKept, 0);
    end_of_old_readings_is_needed: is_needed(RestoreEndsOldReadings, 1);
}
