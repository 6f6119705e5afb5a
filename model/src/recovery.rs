//! Recovery after the last fault. Shows that everything can still be sold.

use crate::actions::others;
use crate::contents::{Attempt, BuyAnswer, SHARDS};
use crate::protocol::Protection;
use crate::sale::SaleModel;
use crate::shard::{ReplicaLink, Server};
use crate::state::State;

/// Returns the state after recovery. Every node crashes and loses the values that it held; new nodes read the map.
/// Replicas that fell behind are promoted, and demoted primaries join. Every channel is re-driven. Every
/// user tries again, and when the home shard is empty, a node steals one token. Uses only the calls of the protocol.
pub fn after_recovery(sale: &SaleModel, before: &State) -> State {
    let mut state = State { held_values: Default::default(), found_token: Default::default(), ..*before };
    for shard in 0..SHARDS {
        settle(sale, &mut state, shard);
    }
    for from in (0..SHARDS).filter(|_| sale.protocol.has(Protection::Redrive)) {
        others(from).for_each(|to| transfer(sale, &mut state, from, to, 0));
    }
    for (user, &home) in sale.homes.iter().enumerate() {
        if state.shards[home].primary.buy(user, Attempt::First) == BuyAnswer::Empty {
            let donor = (0..SHARDS).find(|&donor| state.shards[donor].primary.stock > 0);
            if let Some(donor) = donor {
                transfer(sale, &mut state, donor, home, 1);
                state.shards[home].primary.buy(user, Attempt::First);
            }
        }
    }
    state
}

fn settle(sale: &SaleModel, state: &mut State, shard: usize) {
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

/// Moves tokens: `donate`, its barrier, `accept`.
fn transfer(sale: &SaleModel, state: &mut State, from: usize, to: usize, want: i8) {
    let cumulative = state.shards[from].primary.donate(to, want, sale.protocol);
    if state.shards[from].confirms(Server::Primary, true, sale.protocol) {
        state.shards[to].primary.accept(from, cumulative, sale.protocol);
    }
}
