//! How much of a sale was sold by when, for the last minutes.

use std::collections::VecDeque;

use serde::Serialize;
use stock::sale::EpochMs;

/// Points that are kept: five minutes, one a second.
const POINTS_MAX: usize = 300;

/// When, and how much was sold by then; oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct History(VecDeque<(EpochMs, u64)>);

impl History {
    /// Takes in what was seen, unless it was seen before: nobody takes snapshots while nobody leads.
    pub(super) fn push(&mut self, at: EpochMs, sold: u64) {
        if self.0.back().is_some_and(|&(latest, _)| at <= latest) {
            return;
        }
        if self.0.len() == POINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((at, sold));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_latest_points_once() {
        let mut history = History::default();
        for second in (0..400).chain([399, 7]) {
            history.push(1_000 * second, second);
        }
        assert_eq!(history.0.len(), POINTS_MAX);
        assert_eq!((history.0.front(), history.0.back()), (Some(&(100_000, 100)), Some(&(399_000, 399))));
    }
}
