//! Exhaustive checks of the protocol, the record of a sale and the drain of orders, complete and with each protection removed.

mod complete;
mod drain;
mod mutants;
mod records;
mod weaker_settings;

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::Instant;

use model::drain::DrainModel;
use model::records::RecordsModel;
use model::sale::SaleModel;
use stateright::{Checker, HasDiscoveries, Model};

/// The bounds of the checker.
trait Checkable:
    Model<
        State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
        Action: Clone + Debug + Display + PartialEq,
    > + Send
    + Sync
    + 'static
{
}
impl Checkable for SaleModel {}
impl Checkable for RecordsModel {}
impl Checkable for DrainModel {}

/// Searches all states, depth first. Two threads share the work, and states are stored as fingerprints only.
fn holds(name: &str, model: impl Checkable) {
    let began = Instant::now();
    let checker = model.checker().threads(2).spawn_dfs().join();
    println!(
        "{name}: {} states, {} steps, longest path {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

/// Searches with increasing depth, so that the counterexample is a shortest one.
fn breaks<M: Checkable>(missing: impl Debug, property: &'static str, mutant: impl Fn() -> M) {
    let (began, mut states) = (Instant::now(), 0);
    for depth in 2.. {
        let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
        let checker = mutant().checker().finish_when(wanted).target_max_depth(depth).spawn_bfs().join();
        if let Some(path) = checker.discovery(property) {
            let (states, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f64());
            println!("without {missing:?}, broken: {property} ({states} states, {seconds:.2} s)");
            return path.into_actions().iter().for_each(|action| println!("  {action}"));
        }
        assert!(checker.unique_state_count() > states, "nothing breaks without {missing:?}");
        states = checker.unique_state_count();
    }
}
