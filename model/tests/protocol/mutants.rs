//! Each protection is needed: without it the checker finds a shortest counterexample.

use std::collections::BTreeSet;
use std::time::Instant;

use model::protocol::{Protection, Protocol};
use model::sale::SaleModel;
use stateright::{Checker, HasDiscoveries, Model};

/// Searches with increasing depth, so that the counterexample is a shortest one.
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
            println!("without {protection:?}, broken: {property} ({states} states, {seconds:.2} s)");
            path.into_actions().iter().for_each(|action| println!("  {action}"));
            return;
        }
        assert!(checker.unique_state_count() > states, "nothing breaks without {protection:?}");
        states = checker.unique_state_count();
    }
}

/// Without symmetry, because names must stay the same along a counterexample.
fn mutant(protection: Protection) -> SaleModel {
    let external_copiers =
        u8::from(matches!(protection, Protection::EveryCopierConfirms | Protection::ReplicaFollows));
    if matches!(protection, Protection::AloneIsCheckedAtReply | Protection::AnswersExpire) {
        return SaleModel { protocol: Protocol::without(protection), ..SaleModel::with_answers_that_wait() };
    }
    let is_audited = protection == Protection::AuditReadsInFirst;
    let protocol = Protocol::without(protection);
    SaleModel { protocol, external_copiers, is_audited, by_symmetry: false, ..SaleModel::complete() }
}

#[test]
fn barrier_before_answer_is_needed() {
    is_needed(Protection::BarrierBeforeAnswer);
}

#[test]
fn count_of_failed_replicas_is_needed() {
    is_needed(Protection::FailedReplicasCount);
}

#[test]
fn barrier_before_accept_is_needed() {
    is_needed(Protection::BarrierBeforeAccept);
}

#[test]
fn barrier_before_redrive_is_needed() {
    is_needed(Protection::BarrierBeforeRedrive);
}

#[test]
fn tick_is_needed() {
    is_needed(Protection::Tick);
}

#[test]
fn maximum_in_accept_is_needed() {
    is_needed(Protection::AcceptTakesMaximum);
}

#[test]
fn stock_check_in_donate_is_needed() {
    is_needed(Protection::DonateChecksStock);
}

#[test]
fn atomic_buy_is_needed() {
    is_needed(Protection::BuyIsAtomic);
}

#[test]
fn order_id_is_needed() {
    is_needed(Protection::OrderIds);
}

#[test]
fn fingerprint_is_needed() {
    is_needed(Protection::Fingerprint);
}

#[test]
fn role_guard_is_needed() {
    is_needed(Protection::RoleGuard);
}

#[test]
fn count_of_copiers_is_needed() {
    is_needed(Protection::CopiersCount);
}

#[test]
fn confirmation_by_every_copier_is_needed() {
    is_needed(Protection::EveryCopierConfirms);
}

#[test]
fn check_of_replica_address_is_needed() {
    is_needed(Protection::ReplicaFollows);
}

#[test]
fn map_check_at_reply_is_needed() {
    is_needed(Protection::AloneIsCheckedAtReply);
}

#[test]
fn replicas_named_by_primary_are_needed() {
    is_needed(Protection::PrimaryNamesItsReplicas);
}

#[test]
fn expiry_of_answers_is_needed() {
    is_needed(Protection::AnswersExpire);
}

#[test]
fn reading_the_map_is_needed() {
    is_needed(Protection::MapIsRead);
}

#[test]
fn full_copy_is_needed() {
    is_needed(Protection::FullCopy);
}

#[test]
fn barrier_before_sold_out_is_needed() {
    is_needed(Protection::SoldOutIsConfirmed);
}

#[test]
fn sold_out_from_sales_is_needed() {
    is_needed(Protection::SoldOutFromSales);
}

#[test]
fn second_check_of_home_is_needed() {
    is_needed(Protection::HomeCheckedAgain);
}

#[test]
fn redrive_is_needed() {
    is_needed(Protection::Redrive);
}

#[test]
fn audit_order_is_needed() {
    is_needed(Protection::AuditReadsInFirst);
}
