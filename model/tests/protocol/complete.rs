//! With every protection, no order of events breaks the promise.

use model::sale::SaleModel;

use crate::holds;

#[test]
fn promise_holds_for_two_users_per_shard() {
    holds("homes 2 + 2", SaleModel::complete());
}

#[test]
fn promise_holds_for_three_users_at_one_shard() {
    holds("homes 3 + 1", SaleModel { homes: vec![0, 0, 0, 1], minted: [1, 2], ..SaleModel::complete() });
}

#[test]
fn promise_holds_without_symmetry() {
    holds("without symmetry", SaleModel { failovers: 1, by_symmetry: false, ..SaleModel::complete() });
}

#[test]
fn promise_holds_with_an_external_copier() {
    let sale = SaleModel { external_copiers: 1, ..SaleModel::complete() };
    holds("a server outside the cluster", sale);
}

#[test]
fn promise_holds_when_answers_wait() {
    holds("answers that wait", SaleModel::with_answers_that_wait());
}

#[test]
fn promise_holds_when_steps_are_spelled_out() {
    holds("spelled out", SaleModel { moves_max: 1, is_spelled_out: true, ..SaleModel::complete() });
}

#[test]
fn promise_holds_during_an_audit() {
    holds("audited", SaleModel { is_audited: true, ..SaleModel::complete() });
}

#[test]
#[ignore = "sizes are set by the variables MODEL_…"]
fn promise_holds_for_larger_sizes() {
    let base = SaleModel::complete();
    let tokens = |minted: Vec<i8>| <[i8; 2]>::try_from(minted).unwrap();
    let sale = SaleModel {
        failovers: list("MODEL_FAILOVERS").map_or(3, |failovers| failovers[0]),
        moves_max: list("MODEL_MOVES").map_or(3, |moves| moves[0]),
        homes: list("MODEL_HOMES").unwrap_or(base.homes),
        minted: list("MODEL_MINTED").map_or(base.minted, tokens),
        is_spelled_out: list("MODEL_SPELLED_OUT") == Some(vec![1]),
        ..SaleModel::complete()
    };
    holds(&format!("{sale:?}"), sale);
}

/// Parses the comma-separated numbers in an environment variable.
fn list<T: std::str::FromStr>(variable: &str) -> Option<Vec<T>> {
    let text = std::env::var(variable).ok()?;
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{variable}: {word:?} is not a number"));
    Some(text.split(',').map(number).collect())
}
