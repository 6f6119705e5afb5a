//! What can happen: calls of nodes and coordinators, and faults.

use crate::contents::{Attempt, SHARDS};
use crate::protocol::Protection;
use crate::sale::Sale;
use crate::shard::{ReplicaLink, Server};
use crate::state::State;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node sends a user's attempt: for the first time, once more because it had no answer, or late.
    Buy(Purchase),
    /// Only where answers wait: the same, and the answer is read later.
    BuyAndWait(Purchase),
    /// Only where answers wait: a node reads the answer.
    Hear,
    /// A node steals, or a coordinator rebalances or drains a shard: so many tokens shall enter the channel.
    Donate(Transfer, i8),
    /// A coordinator asks what a channel holds: `donate` that wants 0.
    Redrive(Transfer),
    /// Who holds a channel's cumulative value presents it.
    Accept(Transfer, i8),
    /// The replica of a shard stops following.
    FallBehind(usize),
    /// The replica of a shard, which fell behind, is promoted.
    FailOver(usize),
    /// The deposed primary of a shard joins its successor.
    Join(usize),
    /// The replica of a shard has its copy and all writes since the fork.
    FinishCopy(usize),
    /// All nodes read the map of a shard's servers.
    ReadMap(usize),
    /// A server outside the cluster begins to copy the primary of a shard.
    CopyFromOutside(usize),
    /// The audit reads one end of all channels.
    Audit,
    /// Only where spelled out: nodes and coordinators crash; what was in their hands, and what they saw, is gone.
    Crash,
    /// Only where spelled out: a replica that lags has caught up.
    CatchUp(usize),
    /// Only where spelled out: a replica whose link was cut for too long begins a new copy.
    CopyAgain(usize),
    /// Only where spelled out: a level is read for a snapshot.
    ReadLevel(usize, Server),
    /// Only where `buy` is not atomic: an attempt that found a token takes it.
    Take(Purchase),
    /// Only where homes are not asked again: a user who found the home shard empty hears that all is sold.
    GiveUp(usize),
}

/// A call of `buy` for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purchase {
    /// Who buys.
    pub user: usize,
    /// Which attempt, which is what the order id says.
    pub attempt: Attempt,
    /// The shard that is asked; the home shard, as long as fingerprints are checked.
    pub shard: usize,
    /// The server that is taken for its primary.
    pub server: Server,
    /// Whether the answer arrives.
    pub heard: bool,
}

/// A call that moves tokens. `donate` goes to a server of the giving shard, `accept` to one of the receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The giving shard.
    pub from: usize,
    /// The receiving shard.
    pub to: usize,
    /// The server that is taken for the primary.
    pub server: Server,
    /// Whether the answer arrives.
    pub heard: bool,
}

/// Lists what can happen next. Whether it changes anything is found out by trying.
pub(crate) fn possible(sale: &Sale, state: &State, actions: &mut Vec<Action>) {
    let answers: &[bool] = if sale.is_spelled_out { &[true, false] } else { &[true] };
    for shard in 0..SHARDS {
        for server in state.shards[shard].servers() {
            for &heard in answers {
                buys(sale, shard, server, heard, actions);
                donations(sale, state, shard, server, heard, actions);
            }
            accepts(sale, state, shard, server, actions);
        }
        faults(sale, state, shard, actions);
    }
    if sale.is_audited && state.audit.is_none() {
        actions.push(Action::Audit);
    }
    if sale.is_spelled_out {
        spelled_out(state, actions);
    }
    if sale.answers_wait {
        late_answers(sale, state, actions);
    }
    second_halves(sale, state, actions);
}

fn buys(sale: &Sale, shard: usize, server: Server, heard: bool, actions: &mut Vec<Action>) {
    let strays = !sale.protocol.has(Protection::Fingerprint);
    for (user, &home) in sale.homes.iter().enumerate() {
        if home == shard || strays {
            let buy = |attempt| Action::Buy(Purchase { user, attempt, shard, server, heard });
            actions.extend(Attempt::ALL.map(buy));
        }
    }
}

fn donations(
    sale: &Sale,
    state: &State,
    from: usize,
    server: Server,
    heard: bool,
    actions: &mut Vec<Action>,
) {
    let Some(books) = state.shards[from].books(server) else { return };
    let looks = sale.protocol.has(Protection::DonateLooksAtStock);
    let most = if looks { books.donation_max() } else { 1 };
    for to in others(from) {
        let transfer = Transfer { from, to, server, heard };
        let room = sale.moves_max - books.donated[to];
        actions.extend((1..=most.min(room)).map(|want| Action::Donate(transfer, want)));
        if books.donated[to] > 0 {
            actions.push(Action::Redrive(transfer));
        }
    }
}

fn accepts(sale: &Sale, state: &State, to: usize, server: Server, actions: &mut Vec<Action>) {
    for from in others(to) {
        let transfer = Transfer { from, to, server, heard: true };
        let held = (1..=sale.moves_max).filter(|value| state.hands[from][to] & (1 << value) != 0);
        actions.extend(held.map(|cumulative| Action::Accept(transfer, cumulative)));
    }
}

/// A replica falls behind only to be promoted, so no more do than failovers may happen.
fn faults(sale: &Sale, state: &State, shard: usize, actions: &mut Vec<Action>) {
    let behind = state.shards.iter().filter(|shard| matches!(shard.link, ReplicaLink::Behind(_))).count();
    let alone_on_a_map = state.shards[shard].alone_on_a_map;
    let is_known = !(alone_on_a_map && sale.protocol.has(Protection::MapIsRead));
    match state.shards[shard].link {
        ReplicaLink::InStep if behind < usize::from(state.failovers_left) => {
            actions.push(Action::FallBehind(shard))
        }
        ReplicaLink::Behind(_) | ReplicaLink::Copying(_) if state.failovers_left > 0 && is_known => {
            actions.push(Action::FailOver(shard));
        }
        ReplicaLink::Alone => actions.push(Action::Join(shard)),
        ReplicaLink::InStep | ReplicaLink::Behind(_) | ReplicaLink::Copying(_) => {}
    }
    if matches!(state.shards[shard].link, ReplicaLink::Copying(_)) {
        actions.push(Action::FinishCopy(shard));
    }
    if alone_on_a_map && state.shards[shard].link != ReplicaLink::Alone {
        actions.push(Action::ReadMap(shard));
    }
    if state.outsiders() < usize::from(sale.outsiders) {
        actions.push(Action::CopyFromOutside(shard));
    }
}

/// One answer waits at a time.
fn late_answers(sale: &Sale, state: &State, actions: &mut Vec<Action>) {
    if state.unread.is_some() {
        actions.push(Action::Hear);
        return;
    }
    for (user, &shard) in sale.homes.iter().enumerate() {
        for server in state.shards[shard].servers() {
            let buy = |attempt| Action::BuyAndWait(Purchase { user, attempt, shard, server, heard: true });
            actions.extend(Attempt::ALL.map(buy));
        }
    }
}

/// What is folded into other steps, or left out as less than they allow.
fn spelled_out(state: &State, actions: &mut Vec<Action>) {
    actions.push(Action::Crash);
    for (shard, place) in state.shards.iter().zip(0..) {
        actions.extend(shard.servers().map(|server| Action::ReadLevel(place, server)));
        if matches!(shard.link, ReplicaLink::Behind(_)) {
            actions.push(Action::CatchUp(place));
            actions.push(Action::CopyAgain(place));
        }
    }
}

/// The second halves of what takes one step as long as nothing is missing.
fn second_halves(sale: &Sale, state: &State, actions: &mut Vec<Action>) {
    let sold_out = state.seen_sold_out(sale.total(), sale.protocol);
    for (user, &shard) in sale.homes.iter().enumerate() {
        let looked = Attempt::ALL.into_iter().filter(|&attempt| state.looked[user][attempt as usize]);
        let take = |attempt| Purchase { user, attempt, shard, server: Server::Primary, heard: true };
        actions.extend(looked.map(|attempt| Action::Take(take(attempt))));
        if sold_out && state.found_empty[user] {
            actions.push(Action::GiveUp(user));
        }
    }
}

pub(crate) fn others(shard: usize) -> impl Iterator<Item = usize> {
    (0..SHARDS).filter(move |&other| other != shard)
}
