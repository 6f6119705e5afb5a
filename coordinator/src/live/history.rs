//! Units of a sale sold over time, for the last minutes.

use std::collections::VecDeque;

use rediscluster::EpochMs;
use serde::Serialize;

/// Most points: five minutes, one point per second.
const POINTS_MAX: usize = 300;

/// Pairs of a time and the units sold by then; oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct History(VecDeque<(EpochMs, u64)>);

impl History {
    /// Adds a point, unless the same snapshot was added before: without a leader no new ones are published.
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
