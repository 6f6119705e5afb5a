//! The drain of orders into PostgreSQL, complete and with each protection removed.

use model::drain::{DrainModel, DrainProtection};

use crate::{breaks, holds};

const TWO_FAILOVERS: DrainModel = DrainModel { users: 2, failovers: 2, second_orders: 0, missing: None };

/// A shard that breaks its own rule once.
const SECOND_ORDER: DrainModel = DrainModel { failovers: 1, second_orders: 1, ..TWO_FAILOVERS };

#[test]
fn rows_are_the_orders_after_failovers() {
    holds("drain, two failovers", TWO_FAILOVERS);
}

#[test]
fn second_order_of_a_user_is_reported() {
    holds("drain, one failover and one second order", SECOND_ORDER);
}

macro_rules! needed {
    ($($test:ident: $protection:ident in $model:ident;)+) => {
        $(#[test]
        fn $test() {
            let missing = DrainProtection::$protection;
            breaks(missing, missing.keeps(), || DrainModel { missing: Some(missing), ..$model });
        })+
    };
}

needed! {
    barrier_before_read_is_needed: BarrierBeforeRead in TWO_FAILOVERS;
    end_of_read_at_barrier_is_needed: ReadEndsAtBarrier in TWO_FAILOVERS;
    rows_with_cursor_are_needed: RowsWithCursor in TWO_FAILOVERS;
    comparison_of_cursor_is_needed: CursorIsCompared in TWO_FAILOVERS;
    conflict_target_is_needed: ConflictTarget in SECOND_ORDER;
    unique_user_is_needed: UniqueUser in SECOND_ORDER;
}

/// Without a second order, a conflict clause without a target breaks nothing: the fault is silent until it matters.
#[test]
fn conflict_target_matters_for_second_orders_only() {
    let without = DrainModel { missing: Some(DrainProtection::ConflictTarget), ..TWO_FAILOVERS };
    holds("without ConflictTarget, no second order", without);
}
