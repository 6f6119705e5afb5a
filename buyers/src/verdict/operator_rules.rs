//! Rules that compare the answers to operators with the sale's final state.

use stock::sale::SaleState;

use super::{Violation, operations::Operations};
use crate::{
    FinalState,
    journal::{Change, JournalEntry, Micros},
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
    let wrong: Vec<String> = final_state
        .shards
        .iter()
        .filter(|held| {
            !states.contains(&held.state)
                || !ends.contains(&held.window.ends_at)
                || held.window.starts_at != starts_at
        })
        .map(|held| format!("{} ({}, {:?})", held.shard, held.state.as_str(), held.window))
        .collect();
    let states: Vec<&str> = states.into_iter().map(SaleState::as_str).collect();
    (!wrong.is_empty()).then(|| {
        format!(
            "shards {} hold none of the states {states:?} with a window from {starts_at} to one of {ends:?}",
            wrong.join(", ")
        )
    })
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
    (!possible.contains(&final_state.total)).then(|| {
        format!(
            "there are {} units; {confirmed} were confirmed, and restocks of {unknown:?} are unknown",
            final_state.total
        )
    })
}

fn oversold(final_state: &FinalState) -> Option<String> {
    let claims = final_state.claims.len() as u64;
    (claims > final_state.total)
        .then(|| format!("{claims} users have a claim, but there are only {} units", final_state.total))
}

/// Every refusal is a violation: operators only request changes that the sale allows.
fn refused(operations: &Operations) -> Option<String> {
    let refused = operations.all().iter().find(|operation| operation.is_refused)?;
    Some(format!("{:?} was refused", refused.change))
}

/// Checks the last change that is not a restock: earlier ones were superseded. The outcome of a restock may stay
/// unknown, and is checked by the number of units.
fn left_unconfirmed(operations: &Operations) -> Option<String> {
    let last =
        operations.all().iter().rfind(|operation| !matches!(operation.change, Change::Restock { .. }))?;
    let is_unresolved = last.done.is_none() && !last.is_refused;
    is_unresolved.then(|| format!("{:?} never got a definite answer", last.change))
}

fn lines(records: &[JournalEntry]) -> Vec<String> {
    let answer = |request: u64| {
        records.iter().find_map(|record| match record {
            JournalEntry::Answered(answered) if answered.request == request => Some(answered),
            _ => None,
        })
    };
    let line = |record: &JournalEntry| {
        let JournalEntry::Operated(operated) = record else { return None };
        let result = answer(operated.request).map_or("no answer".into(), |answered| {
            let status = answered.status.map_or("no answer".into(), |status| status.to_string());
            format!("at {} {status} {}", answered.at, answered.reason.as_deref().unwrap_or_default())
        });
        let (at, via, change, number) = (operated.at, &operated.via, operated.change, operated.operation);
        Some(format!("operation {number} at {at} via {via}: {change:?} -> {result}"))
    };
    records.iter().filter_map(line).collect()
}
