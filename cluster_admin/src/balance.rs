//! The minimum number of moves that gives each group its share of the slots, and of the slots that hold keys, because
//! the load goes to the shards of sales. Pure.

use std::collections::BTreeSet;

use rediscluster::{SLOTS, Slot};

use crate::facts::{Facts, Server};
use crate::plan::{Move, index};

/// A group within this percentage of its share is not changed.
const BALANCED_WITHIN_PERCENT: f64 = 2.0;

/// The number of slots of a group.
pub(crate) fn share(group: usize, groups: usize) -> usize {
    let bound = |group: usize| usize::from(SLOTS) * group / groups;
    bound(group + 1) - bound(group)
}

pub(crate) fn is_uneven(facts: &Facts) -> bool {
    let fair = f64::from(SLOTS) / facts.groups() as f64;
    let is_off =
        |leader: &&Server| (leader.slots.len() as f64 / fair - 1.0).abs() > BALANCED_WITHIN_PERCENT / 100.0;
    facts.leaders().iter().any(is_off)
}

/// Returns the moves, or `None` when the slots that hold keys are not known yet. Slots with keys come first, the others
/// are taken from the end.
pub(crate) fn moves_to_balance(facts: &Facts) -> Option<Vec<Move>> {
    let leaders = facts.leaders();
    let shares = leaders.into_iter().enumerate().map(|(group, leader)| {
        let filled = leader.filled.as_ref()?;
        let (full, empty) = leader.slots.iter().partition(|slot| filled.contains(slot));
        let wanted = share(group, facts.groups());
        Some(Share { server: index(facts, leader), wanted, full, empty })
    });
    let mut balance = Balance { shares: shares.collect::<Option<_>>()?, moves: Vec::new() };
    balance.spread_full_slots();
    balance.spread_slots();
    Some(balance.moves)
}

/// The slots of one group while moves are planned.
struct Share {
    server: usize,
    wanted: usize,
    /// Slots that hold keys.
    full: BTreeSet<Slot>,
    empty: BTreeSet<Slot>,
}

struct Balance {
    shares: Vec<Share>,
    moves: Vec<Move>,
}

impl Share {
    fn surplus(&self) -> usize {
        (self.full.len() + self.empty.len()).saturating_sub(self.wanted)
    }

    fn lacks(&self) -> usize {
        self.wanted.saturating_sub(self.full.len() + self.empty.len())
    }
}

impl Balance {
    /// Gives groups that lack slots their share of those with keys.
    fn spread_full_slots(&mut self) {
        let fair = self.shares.iter().map(|share| share.full.len()).sum::<usize>() / self.shares.len();
        for to in 0..self.shares.len() {
            while self.shares[to].lacks() > 0 && self.shares[to].full.len() < fair {
                let has_more =
                    |share: &&Share| share.surplus() > 0 && share.full.len() > self.shares[to].full.len() + 1;
                let Some(from) = self.fullest(has_more, |share| share.full.len()) else { break };
                let slot = self.shares[from].full.pop_last().expect("it has more than the receiver");
                self.shares[to].full.insert(slot);
                self.record(from, to, slot);
            }
        }
    }

    fn spread_slots(&mut self) {
        for to in 0..self.shares.len() {
            while self.shares[to].lacks() > 0 {
                let Some(from) = self.fullest(|share| share.surplus() > 0, Share::surplus) else { return };
                let donor = &mut self.shares[from];
                let slot = donor.empty.pop_last().or_else(|| donor.full.pop_last());
                let slot = slot.expect("a surplus consists of slots");
                self.shares[to].empty.insert(slot);
                self.record(from, to, slot);
            }
        }
    }

    /// The first of those that have most.
    fn fullest(&self, is_donor: impl Fn(&&Share) -> bool, size: impl Fn(&Share) -> usize) -> Option<usize> {
        let donors = self.shares.iter().enumerate().filter(|(_, share)| is_donor(share));
        donors.rev().max_by_key(|(_, share)| size(share)).map(|(i, _)| i)
    }

    fn record(&mut self, from: usize, to: usize, slot: Slot) {
        self.moves.push(Move { from: self.shares[from].server, to: self.shares[to].server, slot });
    }
}
