//! Rules that compare the answers to operators with the sale's final state.

use super::{Violation, json, operations::Operations};
use crate::{
    FinalState,
    journal::{Change, JournalEntry, Micros, answers},
};

/// Returns the violations of these rules.
pub(super) fn violations(
    records: &[JournalEntry],
    operations: &Operations,
    final_state: &FinalState,
) -> Vec<Violation> {
    let rules: [(&'static str, Option<String>); 5] = [
        ("a confirmed change stays in force", change_lost(operations, final_state)),
        ("a restock adds its units once", wrong_total(operations, final_state)),
        ("claims do not exceed the units", oversold(final_state)),
        ("a valid change is not refused", refused(operations)),
        ("the last change gets a definite answer", left_unconfirmed(operations)),
    ];
    let broken = rules.into_iter().filter_map(|(rule, what)| Some((rule, what?)));
    broken.map(|(rule, what)| Violation { rule, what, lines: lines(records) }).collect()
}

fn change_lost(operations: &Operations, final_state: &FinalState) -> Option<String> {
    let states = operations.states(Micros::MAX, Micros::MAX);
    let ends = operations.ends(Micros::MAX, Micros::MAX);
    let starts_at = operations.created.map(|(_, window, _)| window.starts_at)?;
    let numbered = final_state.shards.iter().enumerate();
    let mut wrong = numbered.filter(|(_, held)| {
        let window = held.window;
        !(states.contains(&held.state) && ends.contains(&window.ends_at) && window.starts_at == starts_at)
    });
    let (shard, held) = wrong.next()?;
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    Some(format!(
        "shard {shard} and {} more hold {held:?}, none of the states {states:?} with a window from {starts_at} to one of {ends:?}",
        wrong.count()
    ))
}

fn wrong_total(operations: &Operations, final_state: &FinalState) -> Option<String> {
    let confirmed = operations.total_at(Micros::MAX)?;
    let unknown = operations.unknown_restocks();
    let mut possible = vec![confirmed];
    for units in &unknown {
        possible.extend(possible.clone().into_iter().map(|total| total + units));
        possible.sort_unstable();
        possible.dedup();
    }
    let total = final_state.total;
    (!possible.contains(&total)).then(|| {
        format!(
            "there are {total} units; {confirmed} were confirmed, and restocks of {unknown:?} are unknown"
        )
    })
}

fn oversold(final_state: &FinalState) -> Option<String> {
    let (claims, total) = (final_state.claims.len() as u64, final_state.total);
    (claims > total).then(|| format!("{claims} users have a claim, but there are only {total} units"))
}

/// Every refusal is a violation: operators only request changes that the sale allows.
fn refused(operations: &Operations) -> Option<String> {
    let refused = operations.all.iter().find(|operation| operation.is_refused)?;
    Some(format!("{:?} was refused", refused.change))
}

/// Checks the last change that is not a restock: earlier ones were superseded. The outcome of a restock may stay
/// unknown, and is checked by the number of units.
fn left_unconfirmed(operations: &Operations) -> Option<String> {
    let mut changes = operations.all.iter();
    let last = changes.rfind(|operation| !matches!(operation.change, Change::Restock { .. }))?;
    let is_unresolved = last.done.is_none() && !last.is_refused;
    is_unresolved.then(|| format!("{:?} never got a definite answer", last.change))
}

fn lines(records: &[JournalEntry]) -> Vec<String> {
    let answers = answers(records);
    let operated = records.iter().filter_map(|record| match record {
        JournalEntry::Operated(operated) => Some(operated),
        _ => None,
    });
    let tries = operated.map(|operated| [Some(json(operated)), answers.get(&operated.request).map(json)]);
    tries.flatten().flatten().collect()
}
