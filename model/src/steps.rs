//! What each action does.
//!
//! A call and what comes of its barrier are one step. The replica follows at once or not at all, so at the moment of
//! the call it is known whether its barrier can be confirmed; and a promise that is kept from this moment on is kept
//! from any later one on, at which the answer might really be told.

use crate::actions::{Action, Purchase, Transfer};
use crate::contents::BuyAnswer;
use crate::protocol::Protection;
use crate::sale::Sale;
use crate::shard::{ReplicaLink, Server};
use crate::state::{Channels, LevelReadings, State, UnreadAnswer};

/// The world after this.
pub(crate) fn after(sale: &Sale, before: &State, action: Action) -> State {
    let mut state = *before;
    match action {
        Action::Buy(purchase) => buy(sale, &mut state, purchase),
        Action::BuyAndWait(purchase) => buy_and_wait(sale, &mut state, purchase),
        Action::Hear => hear(sale, &mut state),
        Action::Donate(transfer, want) => donate(sale, &mut state, transfer, want),
        Action::Redrive(transfer) => redrive(sale, &mut state, transfer),
        Action::Accept(transfer, cumulative) => accept(sale, &mut state, transfer, cumulative),
        Action::FallBehind(shard) => state.shards[shard].fall_behind(),
        Action::FailOver(shard) => fail_over(sale, &mut state, shard),
        Action::Join(shard) => state.shards[shard].join(sale.protocol),
        Action::FinishCopy(shard) => state.shards[shard].link = ReplicaLink::InStep,
        Action::ReadMap(shard) => state.shards[shard].read_map(sale.answers_wait),
        Action::CopyFromOutside(shard) => state.shards[shard].outsider = true,
        Action::Audit => state.audit = Some(audit_begun(sale, &state)),
        Action::Crash => crash(&mut state),
        Action::CatchUp(shard) => state.shards[shard].link = ReplicaLink::InStep,
        Action::CopyAgain(shard) => {
            state.shards[shard].link = ReplicaLink::Copying(state.shards[shard].primary)
        }
        Action::ReadLevel(shard, server) => state.read_level(shard, server, sale.protocol),
        Action::Take(purchase) => take(sale, &mut state, purchase),
        Action::GiveUp(user) => state.told[user].out_of_stock = true,
    }
    if !sale.is_spelled_out {
        state.read_levels(sale.protocol);
    }
    state
}

fn buy(sale: &Sale, state: &mut State, purchase: Purchase) {
    let Purchase { user, attempt, shard, server, .. } = purchase;
    let Some(books) = state.shards[shard].books_mut(server) else { return };
    if !sale.protocol.has(Protection::BuyIsAtomic) && books.look(user, attempt) == BuyAnswer::Bought {
        state.looked[user][attempt as usize] |= server == Server::Primary;
        return;
    }
    let answer = books.buy(user, attempt);
    pass_on(sale, state, purchase, answer);
}

/// The server has answered, and no node has read it yet.
fn buy_and_wait(sale: &Sale, state: &mut State, purchase: Purchase) {
    let Purchase { user, attempt, shard, server, .. } = purchase;
    let sold_out = state.seen_sold_out(sale.total(), sale.protocol);
    let Some(books) = state.shards[shard].books_mut(server) else { return };
    let answer = books.buy(user, attempt);
    if state.shards[shard].holds_alone(server, answer.wrote(sale.protocol), sale.protocol) {
        state.unread = Some(UnreadAnswer { purchase, answer, sold_out });
    }
}

/// A node reads the answer, and looks at its map once more.
fn hear(sale: &Sale, state: &mut State) {
    let Some(UnreadAnswer { purchase, answer, sold_out }) = state.unread.take() else { return };
    let Purchase { user, attempt, shard, server, .. } = purchase;
    let is_checked = sale.protocol.has(Protection::AloneIsCheckedAtReply);
    if !is_checked || state.shards[shard].is_alone_on_a_map(server) {
        state.tell(user, attempt, answer, sold_out, sale.protocol);
    }
}

fn take(sale: &Sale, state: &mut State, purchase: Purchase) {
    let Purchase { user, attempt, shard, .. } = purchase;
    state.looked[user][attempt as usize] = false;
    state.shards[shard].primary.sell(user, attempt);
    pass_on(sale, state, purchase, BuyAnswer::Bought);
}

/// Barrier B1, and what the user is told behind it.
fn pass_on(sale: &Sale, state: &mut State, purchase: Purchase, answer: BuyAnswer) {
    let Purchase { user, attempt, shard, server, heard } = purchase;
    let protocol = sale.protocol;
    let confirmed = state.shards[shard].confirms(server, answer.wrote(protocol), protocol)
        || !protocol.has(Protection::BarrierBeforeTelling)
        || !protocol.has(Protection::FailedReplicasCount) && server == Server::Primary;
    if heard && confirmed {
        let sold_out = state.seen_sold_out(sale.total(), protocol);
        state.tell(user, attempt, answer, sold_out, protocol);
    }
}

/// `donate` and barrier B2: behind it the node has the channel's value in its hands.
fn donate(sale: &Sale, state: &mut State, transfer: Transfer, want: i8) {
    let Transfer { from, to, server, heard } = transfer;
    let Some(books) = state.shards[from].books_mut(server) else { return };
    let cumulative = books.donate(to, want, sale.protocol);
    let confirmed = state.shards[from].confirms(server, true, sale.protocol);
    if heard && (confirmed || !sale.protocol.has(Protection::BarrierBeforeAccept)) {
        state.hands[from][to] |= 1 << cumulative;
    }
}

fn redrive(sale: &Sale, state: &mut State, transfer: Transfer) {
    let Transfer { from, to, server, heard } = transfer;
    let Some(books) = state.shards[from].books(server) else { return };
    let cumulative = books.donated[to];
    let wrote = sale.protocol.has(Protection::Tick);
    let confirmed = state.shards[from].confirms(server, wrote, sale.protocol);
    if heard && (confirmed || !sale.protocol.has(Protection::BarrierBeforeRedrive)) {
        state.hands[from][to] |= 1 << cumulative;
    }
}

fn accept(sale: &Sale, state: &mut State, transfer: Transfer, cumulative: i8) {
    if let Some(books) = state.shards[transfer.to].books_mut(transfer.server) {
        books.accept(transfer.from, cumulative, sale.protocol);
    }
}

fn fail_over(sale: &Sale, state: &mut State, shard: usize) {
    if let ReplicaLink::Behind(promoted) | ReplicaLink::Copying(promoted) = state.shards[shard].link {
        state.shards[shard].fail_over(promoted);
        state.failovers_left -= 1;
        state.unread = state.unread.and_then(|unread| after_failover(sale, unread, shard));
    }
}

fn after_failover(sale: &Sale, unread: UnreadAnswer, shard: usize) -> Option<UnreadAnswer> {
    let server = match unread.purchase.server {
        server if unread.purchase.shard != shard => server,
        Server::Primary => Server::StalePrimary,
        Server::StalePrimary if sale.protocol.has(Protection::AnswersLapse) => return None,
        Server::StalePrimary => Server::Primary,
    };
    Some(UnreadAnswer { purchase: Purchase { server, ..unread.purchase }, ..unread })
}

fn audit_begun(sale: &Sale, state: &State) -> Channels {
    match sale.protocol.has(Protection::AuditReadsInFirst) {
        true => state.accepted(),
        false => state.donated(),
    }
}

fn crash(state: &mut State) {
    state.hands = Default::default();
    state.seen = LevelReadings::default();
    state.looked = Default::default();
}
