//! What becomes of a sale once the faults end: whether everything can still be sold.

use crate::actions::others;
use crate::contents::{Attempt, BuyAnswer, SHARDS};
use crate::protocol::Protection;
use crate::sale::Sale;
use crate::shard::{ReplicaLink, Server};
use crate::state::State;

/// The world after a calm: every node has crashed, and with it all that was in their hands; new ones read the map;
/// replicas that fell behind are promoted and deposed primaries join; a coordinator re-drives every channel; every
/// user tries again, and where the home shard is empty, a node steals one token. Nothing but the protocol's own calls.
pub fn after_calm(sale: &Sale, before: &State) -> State {
    let mut state = State { hands: Default::default(), looked: Default::default(), ..*before };
    for shard in 0..SHARDS {
        settle(sale, &mut state, shard);
    }
    for from in (0..SHARDS).filter(|_| sale.protocol.has(Protection::Redrive)) {
        others(from).for_each(|to| bring(sale, &mut state, from, to, 0));
    }
    for (user, &home) in sale.homes.iter().enumerate() {
        if state.shards[home].primary.buy(user, Attempt::First) == BuyAnswer::Empty {
            let donor = (0..SHARDS).find(|&donor| state.shards[donor].primary.stock > 0);
            if let Some(donor) = donor {
                bring(sale, &mut state, donor, home, 1);
                state.shards[home].primary.buy(user, Attempt::First);
            }
        }
    }
    state
}

fn settle(sale: &Sale, state: &mut State, shard: usize) {
    let shard = &mut state.shards[shard];
    if let ReplicaLink::Behind(promoted) = shard.link {
        shard.fail_over(promoted);
    }
    if shard.link == ReplicaLink::Alone {
        shard.join(sale.protocol);
    }
    if let ReplicaLink::Copying(_) = shard.link {
        shard.link = ReplicaLink::InStep;
    }
    shard.alone_on_a_map = false;
}

/// `donate`, its barrier, `accept`.
fn bring(sale: &Sale, state: &mut State, from: usize, to: usize, want: i8) {
    let cumulative = state.shards[from].primary.donate(to, want, sale.protocol);
    if state.shards[from].confirms(Server::Primary, true, sale.protocol) {
        state.shards[to].primary.accept(from, cumulative, sale.protocol);
    }
}
