//! What operators were told, held against the sale at its end.

use stock::sale::SaleState;

use super::{Violation, operations::Operations};
use crate::{
    FinalState,
    journal::{Change, JournalEntry, Micros},
};

/// Each rule, and how it was broken.
pub(super) fn violations(
    records: &[JournalEntry],
    operations: &Operations,
    end: &FinalState,
) -> Vec<Violation> {
    let rules: [(&'static str, Option<String>); 5] = [
        ("a change that an operator was told to be done stays done", settings_lost(operations, end)),
        ("a restock adds its units once", total_wrong(operations, end)),
        ("no more is sold than there is", oversold(end)),
        ("a change that is possible is not refused", refused(operations)),
        ("a change is done in the end", left_undone(operations)),
    ];
    let broken = rules.into_iter().filter_map(|(rule, what)| Some((rule, what?)));
    broken.map(|(rule, what)| Violation { rule, what, lines: lines(records) }).collect()
}

fn settings_lost(operations: &Operations, end: &FinalState) -> Option<String> {
    let states = operations.states(Micros::MAX, Micros::MAX);
    let ends = operations.ends(Micros::MAX, Micros::MAX);
    let starts_at = operations.created.map(|(_, window, _)| window.starts_at)?;
    let wrong: Vec<String> = end
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
            "shards {} hold neither of {states:?} with a window from {starts_at} to one of {ends:?}",
            wrong.join(", ")
        )
    })
}

fn total_wrong(operations: &Operations, end: &FinalState) -> Option<String> {
    let sure = operations.total_at(Micros::MAX)?;
    let unknown = operations.unknown_restocks();
    let mut possible = vec![sure];
    for units in &unknown {
        possible.extend(possible.clone().into_iter().map(|total| total + units));
        possible.sort_unstable();
        possible.dedup();
    }
    (!possible.contains(&end.total)).then(|| {
        format!("there are {} units; {sure} were told, and restocks of {unknown:?} are unknown", end.total)
    })
}

fn oversold(end: &FinalState) -> Option<String> {
    let claims = end.claims.len() as u64;
    (claims > end.total).then(|| format!("{claims} users have a unit, and there are {}", end.total))
}

/// Operators only ask for what their sale allows.
fn refused(operations: &Operations) -> Option<String> {
    let refused = operations.all().iter().find(|operation| operation.is_refused)?;
    Some(format!("{:?} was refused", refused.change))
}

/// Restocks may stay unknown: what is left of them is a question of units. Nobody waits for another change for longer
/// than it is tried.
fn left_undone(operations: &Operations) -> Option<String> {
    let last =
        operations.all().iter().rfind(|operation| !matches!(operation.change, Change::Restock { .. }))?;
    let is_undone = last.done.is_none() && !last.is_refused;
    is_undone.then(|| format!("{:?} never got a definite answer", last.change))
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
        let told = answer(operated.request).map_or("nothing".into(), |answered| {
            let status = answered.status.map_or("no answer".into(), |status| status.to_string());
            format!("at {} {status} {}", answered.at, answered.reason.as_deref().unwrap_or_default())
        });
        let (at, via, change, number) = (operated.at, &operated.via, operated.change, operated.operation);
        Some(format!("operation {number} at {at} via {via}: {change:?} -> {told}"))
    };
    records.iter().filter_map(line).collect()
}
