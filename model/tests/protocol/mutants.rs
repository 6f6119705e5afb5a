//! Each protection is needed: without it the checker finds a shortest counterexample.

use model::protocol::{Protection, Protocol};
use model::sale::SaleModel;

use crate::breaks;

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

macro_rules! needed {
    ($($test:ident without $protection:ident;)+) => {
        $(#[test]
        fn $test() {
            let missing = Protection::$protection;
            breaks(missing, missing.keeps(), || mutant(missing));
        })+
    };
}

needed! {
    barrier_before_answer_is_needed without BarrierBeforeAnswer;
    count_of_failed_replicas_is_needed without FailedReplicasCount;
    barrier_before_accept_is_needed without BarrierBeforeAccept;
    barrier_before_redrive_is_needed without BarrierBeforeRedrive;
    tick_is_needed without Tick;
    maximum_in_accept_is_needed without AcceptTakesMaximum;
    stock_check_in_donate_is_needed without DonateChecksStock;
    atomic_buy_is_needed without BuyIsAtomic;
    order_id_is_needed without OrderIds;
    fingerprint_is_needed without Fingerprint;
    role_guard_is_needed without RoleGuard;
    count_of_copiers_is_needed without CopiersCount;
    confirmation_by_every_copier_is_needed without EveryCopierConfirms;
    check_of_replica_address_is_needed without ReplicaFollows;
    map_check_at_reply_is_needed without AloneIsCheckedAtReply;
    replicas_named_by_primary_are_needed without PrimaryNamesItsReplicas;
    expiry_of_answers_is_needed without AnswersExpire;
    reading_the_map_is_needed without MapIsRead;
    full_copy_is_needed without FullCopy;
    barrier_before_sold_out_is_needed without SoldOutIsConfirmed;
    sold_out_from_sales_is_needed without SoldOutFromSales;
    second_check_of_home_is_needed without HomeCheckedAgain;
    redrive_is_needed without Redrive;
    audit_order_is_needed without AuditReadsInFirst;
}
