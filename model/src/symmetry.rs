//! Symmetry reduction: states that differ only in names count as one.
//!
//! The users of one home shard are interchangeable, and so are the two attempts of a user: they can perform the same
//! actions, and no property depends on a name.

use crate::contents::{Attempt, SHARDS, ShardContents, USERS};
use crate::shard::{ReplicaLink, Shard};
use crate::state::State;

/// Returns the representative of a state: the attempt that acted first is called the first, and the users of a home
/// shard are sorted by everything that the state records of them.
pub(crate) fn representative(homes: &[usize], mut state: State) -> State {
    for user in 0..homes.len() {
        if first_met(&state, user) == Some(Attempt::Second) {
            swap_attempts(&mut state, user);
        }
    }
    let mut keys: [u64; USERS] = std::array::from_fn(|user| key(&state, user));
    for end in (1..homes.len()).rev() {
        for user in 0..end {
            if homes[user] == homes[user + 1] && keys[user] < keys[user + 1] {
                keys.swap(user, user + 1);
                swap_users(&mut state, user, user + 1);
            }
        }
    }
    state
}

fn first_met(state: &State, user: usize) -> Option<Attempt> {
    let found_token = Attempt::ALL.into_iter().find(|&attempt| state.found_token[user][attempt as usize]);
    let claim = state.shards.iter().flat_map(all_contents).find_map(|contents| contents.claims[user]);
    state.reported[user].promised.or(claim).or(found_token)
}

/// Encodes everything that the state records of a user as a number.
fn key(state: &State, user: usize) -> u64 {
    const { assert!(SHARDS * 3 * 6 + 8 <= 64, "all that is known of a user fits into the key") };
    let reported = state.reported[user];
    let attempt = |attempt: Option<Attempt>| attempt.map_or(0, |attempt| attempt as u64 + 1);
    let mut key = attempt(reported.promised);
    let mut add = |value: u64| key = key << 2 | value;
    add(u64::from(reported.out_of_stock) << 1 | u64::from(reported.refused_own));
    add(u64::from(state.found_token[user][0]) << 1 | u64::from(state.found_token[user][1]));
    add(u64::from(state.found_empty[user]));
    for contents in state.shards.iter().flat_map(all_contents) {
        add(attempt(contents.claims[user]));
        contents.orders[user].iter().for_each(|&orders| add(u64::from(orders)));
    }
    key
}

fn swap_attempts(state: &mut State, user: usize) {
    let swap = |attempt: &mut Attempt| {
        *attempt = match *attempt {
            Attempt::First => Attempt::Second,
            Attempt::Second => Attempt::First,
        };
    };
    state.reported[user].promised.iter_mut().for_each(swap);
    state.found_token[user].swap(0, 1);
    for_each_contents(state, |contents| {
        contents.claims[user].iter_mut().for_each(swap);
        contents.orders[user].swap(0, 1);
    });
}

fn swap_users(state: &mut State, one: usize, other: usize) {
    state.reported.swap(one, other);
    state.found_token.swap(one, other);
    state.found_empty.swap(one, other);
    for_each_contents(state, |contents| {
        contents.claims.swap(one, other);
        contents.orders.swap(one, other);
    });
}

fn all_contents(shard: &Shard) -> impl Iterator<Item = &ShardContents> {
    let replica = match &shard.link {
        ReplicaLink::Behind(contents) | ReplicaLink::Copying(contents) => Some(contents),
        ReplicaLink::InStep | ReplicaLink::Alone => None,
    };
    let stale_primary = shard.stale_primary.as_ref().map(|stale_primary| &stale_primary.contents);
    [Some(&shard.primary), replica, stale_primary].into_iter().flatten()
}

fn for_each_contents(state: &mut State, mut change: impl FnMut(&mut ShardContents)) {
    for shard in &mut state.shards {
        change(&mut shard.primary);
        if let ReplicaLink::Behind(contents) | ReplicaLink::Copying(contents) = &mut shard.link {
            change(contents);
        }
        if let Some(stale_primary) = &mut shard.stale_primary {
            change(&mut stale_primary.contents);
        }
    }
}
