//! Each protection is needed: without it the checker finds a shortest story in which the promise is broken.

use std::collections::BTreeSet;
use std::time::Instant;

use model::protocol::{Protection, Protocol};
use model::sale::Sale;
use stateright::{Checker, HasDiscoveries, Model};

/// Searches ever deeper, so that no shorter story ends the same way.
fn is_needed(protection: Protection) {
    let began = Instant::now();
    let property = protection.keeps();
    let mut states = 0;
    for depth in 2.. {
        let checker = mutant(protection)
            .checker()
            .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property])))
            .target_max_depth(depth)
            .spawn_bfs()
            .join();
        if let Some(path) = checker.discovery(property) {
            let (states, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f64());
            println!("without {protection:?}, not so: {property} ({states} states, {seconds:.2} s)");
            path.into_actions().iter().for_each(|action| println!("  {action}"));
            return;
        }
        assert!(checker.unique_state_count() > states, "nothing breaks without {protection:?}");
        states = checker.unique_state_count();
    }
}

/// Names stay the same along a story, so no symmetry.
fn mutant(protection: Protection) -> Sale {
    let outsiders =
        u8::from(matches!(protection, Protection::EveryCopierConfirms | Protection::ReplicaFollows));
    if matches!(protection, Protection::AloneIsCheckedAtReply | Protection::AnswersLapse) {
        return Sale { protocol: Protocol::without(protection), ..Sale::with_answers_that_wait() };
    }
    let is_audited = protection == Protection::AuditReadsInFirst;
    let protocol = Protocol::without(protection);
    Sale { protocol, outsiders, is_audited, by_symmetry: false, ..Sale::sound() }
}

#[test]
fn barrier_before_telling() {
    is_needed(Protection::BarrierBeforeTelling);
}

#[test]
fn failed_replicas_count() {
    is_needed(Protection::FailedReplicasCount);
}

#[test]
fn barrier_before_accept() {
    is_needed(Protection::BarrierBeforeAccept);
}

#[test]
fn barrier_before_redrive() {
    is_needed(Protection::BarrierBeforeRedrive);
}

#[test]
fn tick() {
    is_needed(Protection::Tick);
}

#[test]
fn accept_takes_the_maximum() {
    is_needed(Protection::AcceptTakesMaximum);
}

#[test]
fn donate_looks_at_the_stock() {
    is_needed(Protection::DonateLooksAtStock);
}

#[test]
fn buy_is_atomic() {
    is_needed(Protection::BuyIsAtomic);
}

#[test]
fn order_ids() {
    is_needed(Protection::OrderIds);
}

#[test]
fn fingerprint() {
    is_needed(Protection::Fingerprint);
}

#[test]
fn role_guard() {
    is_needed(Protection::RoleGuard);
}

#[test]
fn copiers_count() {
    is_needed(Protection::CopiersCount);
}

#[test]
fn every_copier_confirms() {
    is_needed(Protection::EveryCopierConfirms);
}

#[test]
fn the_replica_follows() {
    is_needed(Protection::ReplicaFollows);
}

#[test]
fn the_map_is_checked_at_the_reply() {
    is_needed(Protection::AloneIsCheckedAtReply);
}

#[test]
fn primaries_name_their_replicas() {
    is_needed(Protection::PrimaryNamesItsReplicas);
}

#[test]
fn answers_lapse() {
    is_needed(Protection::AnswersLapse);
}

#[test]
fn the_map_is_read() {
    is_needed(Protection::MapIsRead);
}

#[test]
fn full_copy() {
    is_needed(Protection::FullCopy);
}

#[test]
fn sold_out_is_confirmed() {
    is_needed(Protection::SoldOutIsConfirmed);
}

#[test]
fn sold_out_is_told_from_sales() {
    is_needed(Protection::SoldOutFromSales);
}

#[test]
fn the_home_shard_is_asked_again() {
    is_needed(Protection::HomeAskedAgain);
}

#[test]
fn channels_are_redriven() {
    is_needed(Protection::Redrive);
}

#[test]
fn the_audit_reads_in_first() {
    is_needed(Protection::AuditReadsInFirst);
}
