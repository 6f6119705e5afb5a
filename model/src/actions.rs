//! Actions of the model: calls of nodes and coordinators, and faults.

use crate::contents::{Attempt, SHARDS};
use crate::protocol::Protection;
use crate::sale::SaleModel;
use crate::shard::{ReplicaLink, Server};
use crate::state::State;

/// One step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node sends a purchase attempt of a user: the first try, a retry without an answer, or a delayed call.
    Buy(Purchase),
    /// The same, but the answer is read in a later step. Exists only when answers wait.
    BuyAndWait(Purchase),
    /// A node reads the answer that waits. Exists only when answers wait.
    ReadAnswer,
    /// A node steals, or a coordinator rebalances or drains a shard: asks for this number of tokens to enter the
    /// channel.
    Donate(TransferCall, i8),
    /// A coordinator asks for the cumulative value of a channel: a `donate` of 0 tokens.
    Redrive(TransferCall),
    /// A node or coordinator that holds a channel's cumulative value sends it to the receiving shard.
    Accept(TransferCall, i8),
    /// The replica of a shard stops following.
    FallBehind(usize),
    /// The replica of a shard is promoted after it fell behind, or while it copies.
    FailOver(usize),
    /// The demoted primary of a shard joins as a replica of its successor.
    Join(usize),
    /// The replica of a shard finishes its copy and has all writes since the fork.
    FinishCopy(usize),
    /// All nodes read the cluster map for a shard.
    ReadMap(usize),
    /// A server outside the cluster begins to copy the primary of a shard.
    CopyFromOutside(usize),
    /// The audit reads one end of all channels.
    Audit,
    /// Nodes and coordinators crash and lose the values that they held and read. Exists only when steps are spelled
    /// out.
    Crash,
    /// A lagging replica catches up. Exists only when steps are spelled out.
    CatchUp(usize),
    /// A replica whose link was cut for too long begins a new copy. Exists only when steps are spelled out.
    CopyAgain(usize),
    /// A snapshot reads one level. Exists only when steps are spelled out.
    ReadLevel(usize, Server),
    /// An attempt takes the token that it found. Exists only when `buy` is not atomic.
    Take(Purchase),
    /// A user who found the home shard empty is answered out of stock. Exists only when home shards are not checked
    /// again.
    GiveUp(usize),
}

/// A call of `buy` for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purchase {
    /// The buyer.
    pub user: usize,
    /// The attempt, which the order id identifies.
    pub attempt: Attempt,
    /// The shard that receives the call. The home shard, as long as fingerprints are checked.
    pub shard: usize,
    /// The server that the node takes for the primary.
    pub server: Server,
    /// False when the answer is lost.
    pub answered: bool,
}

/// A call that moves tokens. `donate` goes to a server of the donor, `accept` to a server of the receiving shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferCall {
    /// The donor.
    pub from: usize,
    /// The receiving shard.
    pub to: usize,
    /// The server that the caller takes for the primary.
    pub server: Server,
    /// False when the answer is lost.
    pub answered: bool,
}

/// Lists the actions that may happen next. Some of them may change nothing; the checker drops those.
pub(crate) fn possible(sale: &SaleModel, state: &State, actions: &mut Vec<Action>) {
    let answers: &[bool] = if sale.is_spelled_out { &[true, false] } else { &[true] };
    for shard in 0..SHARDS {
        for server in state.shards[shard].servers() {
            for &answered in answers {
                buys(sale, shard, server, answered, actions);
                donations(sale, state, shard, server, answered, actions);
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

fn buys(sale: &SaleModel, shard: usize, server: Server, answered: bool, actions: &mut Vec<Action>) {
    let any_shard = !sale.protocol.has(Protection::Fingerprint);
    for (user, &home) in sale.homes.iter().enumerate() {
        if home == shard || any_shard {
            let buy = |attempt| Action::Buy(Purchase { user, attempt, shard, server, answered });
            actions.extend(Attempt::ALL.map(buy));
        }
    }
}

fn donations(
    sale: &SaleModel,
    state: &State,
    from: usize,
    server: Server,
    answered: bool,
    actions: &mut Vec<Action>,
) {
    let Some(contents) = state.shards[from].contents(server) else { return };
    let checks_stock = sale.protocol.has(Protection::DonateChecksStock);
    let most = if checks_stock { contents.donation_max() } else { 1 };
    for to in others(from) {
        let transfer = TransferCall { from, to, server, answered };
        let room = sale.moves_max - contents.donated[to];
        actions.extend((1..=most.min(room)).map(|want| Action::Donate(transfer, want)));
        if contents.donated[to] > 0 {
            actions.push(Action::Redrive(transfer));
        }
    }
}

fn accepts(sale: &SaleModel, state: &State, to: usize, server: Server, actions: &mut Vec<Action>) {
    for from in others(to) {
        let transfer = TransferCall { from, to, server, answered: true };
        let held = (1..=sale.moves_max).filter(|value| state.held_values[from][to] & (1 << value) != 0);
        actions.extend(held.map(|cumulative| Action::Accept(transfer, cumulative)));
    }
}

/// A replica falls behind only in order to be promoted. At most as many fall behind as failovers may still happen.
fn faults(sale: &SaleModel, state: &State, shard: usize, actions: &mut Vec<Action>) {
    let behind = state.shards.iter().filter(|shard| matches!(shard.link, ReplicaLink::Behind(_))).count();
    let alone_on_a_map = state.shards[shard].alone_on_a_map;
    let is_known = !(alone_on_a_map && sale.protocol.has(Protection::MapIsRead));
    match state.shards[shard].link {
        ReplicaLink::InStep if behind < usize::from(state.failovers_left) => {
            actions.push(Action::FallBehind(shard));
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
    if state.external_copiers() < usize::from(sale.external_copiers) {
        actions.push(Action::CopyFromOutside(shard));
    }
}

/// At most one answer waits at a time.
fn late_answers(sale: &SaleModel, state: &State, actions: &mut Vec<Action>) {
    if state.unread.is_some() {
        actions.push(Action::ReadAnswer);
        return;
    }
    for (user, &shard) in sale.homes.iter().enumerate() {
        for server in state.shards[shard].servers() {
            let buy = |attempt| Action::BuyAndWait(Purchase { user, attempt, shard, server, answered: true });
            actions.extend(Attempt::ALL.map(buy));
        }
    }
}

/// Lists the steps that are otherwise part of other steps, or left out because other steps allow more.
fn spelled_out(state: &State, actions: &mut Vec<Action>) {
    actions.push(Action::Crash);
    for (shard, index) in state.shards.iter().zip(0..) {
        actions.extend(shard.servers().map(|server| Action::ReadLevel(index, server)));
        if matches!(shard.link, ReplicaLink::Behind(_)) {
            actions.push(Action::CatchUp(index));
            actions.push(Action::CopyAgain(index));
        }
    }
}

/// Lists the second halves of calls that a missing protection splits into two steps.
fn second_halves(sale: &SaleModel, state: &State, actions: &mut Vec<Action>) {
    let sold_out = state.read_as_sold_out(sale.total(), sale.protocol);
    for (user, &shard) in sale.homes.iter().enumerate() {
        let found_token =
            Attempt::ALL.into_iter().filter(|&attempt| state.found_token[user][attempt as usize]);
        let take = |attempt| Purchase { user, attempt, shard, server: Server::Primary, answered: true };
        actions.extend(found_token.map(|attempt| Action::Take(take(attempt))));
        if sold_out && state.found_empty[user] {
            actions.push(Action::GiveUp(user));
        }
    }
}

pub(crate) fn others(shard: usize) -> impl Iterator<Item = usize> {
    (0..SHARDS).filter(move |&other| other != shard)
}
