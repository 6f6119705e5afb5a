//! States that differ in names only.
//!
//! Users of one home shard are alike, and so are the two attempts of a user: every action that one can do the other
//! can, and no property asks for a name. So one state stands for all that renaming makes of it.

use crate::contents::{Attempt, SHARDS, ShardContents, USERS};
use crate::shard::{ReplicaLink, Shard};
use crate::state::State;

/// The state that stands for this one: the attempt that is met first is called the first, and the users of a home
/// stand in the order of all that is known of them.
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
    let looked = Attempt::ALL.into_iter().find(|&attempt| state.looked[user][attempt as usize]);
    let claim = state.shards.iter().flat_map(all_books).find_map(|books| books.claims[user]);
    state.told[user].promised.or(claim).or(looked)
}

/// All that the state says of a user, as a number.
fn key(state: &State, user: usize) -> u64 {
    const { assert!(SHARDS * 3 * 6 + 8 <= 64, "all that is known of a user fits into the key") };
    let told = state.told[user];
    let attempt = |attempt: Option<Attempt>| attempt.map_or(0, |attempt| attempt as u64 + 1);
    let mut key = attempt(told.promised);
    let mut add = |value: u64| key = key << 2 | value;
    add(u64::from(told.out_of_stock) << 1 | u64::from(told.refused_own));
    add(u64::from(state.looked[user][0]) << 1 | u64::from(state.looked[user][1]));
    add(u64::from(state.found_empty[user]));
    for books in state.shards.iter().flat_map(all_books) {
        add(attempt(books.claims[user]));
        books.orders[user].iter().for_each(|&orders| add(u64::from(orders)));
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
    state.told[user].promised.iter_mut().for_each(swap);
    state.looked[user].swap(0, 1);
    each_books(state, |books| {
        books.claims[user].iter_mut().for_each(swap);
        books.orders[user].swap(0, 1);
    });
}

fn swap_users(state: &mut State, one: usize, other: usize) {
    state.told.swap(one, other);
    state.looked.swap(one, other);
    state.found_empty.swap(one, other);
    each_books(state, |books| {
        books.claims.swap(one, other);
        books.orders.swap(one, other);
    });
}

fn all_books(shard: &Shard) -> impl Iterator<Item = &ShardContents> {
    let replica = match &shard.link {
        ReplicaLink::Behind(books) | ReplicaLink::Copying(books) => Some(books),
        ReplicaLink::InStep | ReplicaLink::Alone => None,
    };
    let zombie = shard.zombie.as_ref().map(|zombie| &zombie.books);
    [Some(&shard.primary), replica, zombie].into_iter().flatten()
}

fn each_books(state: &mut State, mut change: impl FnMut(&mut ShardContents)) {
    for shard in &mut state.shards {
        change(&mut shard.primary);
        if let ReplicaLink::Behind(books) | ReplicaLink::Copying(books) = &mut shard.link {
            change(books);
        }
        if let Some(zombie) = &mut shard.zombie {
            change(&mut zombie.books);
        }
    }
}
