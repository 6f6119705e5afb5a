//! With every protection, no order of events breaks the promise.

use std::time::Instant;

use model::sale::Sale;
use stateright::{Checker, Model};

/// Tries everything, depth first: two threads share the work, and states are kept as fingerprints only.
fn holds(name: &str, sale: Sale) {
    let began = Instant::now();
    let checker = sale.checker().threads(2).spawn_dfs().join();
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
fn two_users_at_each_shard() {
    holds("homes 2 + 2", Sale::sound());
}

#[test]
fn three_users_at_one_shard() {
    holds("homes 3 + 1", Sale { homes: vec![0, 0, 0, 1], minted: [1, 2], ..Sale::sound() });
}

#[test]
fn no_name_matters() {
    holds("every name by itself", Sale { failovers: 1, by_symmetry: false, ..Sale::sound() });
}

#[test]
fn a_server_outside_the_cluster_copies() {
    let sale = Sale { outsiders: 1, ..Sale::sound() };
    holds("a server outside the cluster", sale);
}

#[test]
fn answers_are_read_later() {
    holds("answers that wait", Sale::with_answers_that_wait());
}

#[test]
fn everything_spelled_out() {
    holds("spelled out", Sale { moves_max: 1, is_spelled_out: true, ..Sale::sound() });
}

#[test]
fn an_audit_in_the_midst_of_it() {
    holds("audited", Sale { is_audited: true, ..Sale::sound() });
}

#[test]
#[ignore = "as large as the variables MODEL_… say"]
fn larger() {
    let base = Sale::sound();
    let tokens = |minted: Vec<i8>| <[i8; 2]>::try_from(minted).unwrap();
    let sale = Sale {
        failovers: list("MODEL_FAILOVERS").map_or(3, |failovers| failovers[0]),
        moves_max: list("MODEL_MOVES").map_or(3, |moves| moves[0]),
        homes: list("MODEL_HOMES").unwrap_or(base.homes),
        minted: list("MODEL_MINTED").map_or(base.minted, tokens),
        is_spelled_out: list("MODEL_SPELLED_OUT") == Some(vec![1]),
        ..Sale::sound()
    };
    holds(&format!("{sale:?}"), sale);
}

/// The numbers in a variable, separated by commas.
fn list<T: std::str::FromStr>(variable: &str) -> Option<Vec<T>> {
    let text = std::env::var(variable).ok()?;
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{variable}: {word:?} is no number"));
    Some(text.split(',').map(number).collect())
}
