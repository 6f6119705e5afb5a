//! Sets of slots, as ranges.

use std::fmt;
use std::ops::RangeInclusive;

use rediscluster::Slot;

/// Some slots, in ascending ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(Vec<RangeInclusive<Slot>>);

impl Slots {
    pub(crate) fn new(ranges: impl IntoIterator<Item = RangeInclusive<Slot>>) -> Self {
        Self(ranges.into_iter().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0.iter().any(|range| range.contains(&slot))
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Slot> {
        self.0.iter().cloned().flatten()
    }

    pub(crate) fn ranges(&self) -> &[RangeInclusive<Slot>] {
        &self.0
    }
}

impl FromIterator<Slot> for Slots {
    /// Collects slots in ascending order.
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut ranges: Vec<RangeInclusive<Slot>> = Vec::new();
        for slot in slots {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == slot => *last = *last.start()..=slot,
                _ => ranges.push(slot..=slot),
            }
        }
        Self(ranges)
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |range: &RangeInclusive<Slot>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(text).collect::<Vec<_>>().join(" "))
    }
}
