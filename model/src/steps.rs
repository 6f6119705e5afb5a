//! Effects of actions.
//!
//! A call and the result of its barrier are one step. The replica follows at once or not at all, so the result of the
//! barrier is known at the moment of the call. A promise that is kept from this moment on is also kept from any later
//! moment, at which the answer may really arrive.

use crate::actions::{Action, Purchase, TransferCall};
use crate::contents::BuyAnswer;
use crate::protocol::Protection;
use crate::sale::SaleModel;
use crate::shard::{ReplicaLink, Server};
use crate::state::{Channels, LevelReadings, State, UnreadAnswer};

/// Returns the state after an action.
pub(crate) fn after(sale: &SaleModel, before: &State, action: Action) -> State {
    let mut state = *before;
    match action {
        Action::Buy(purchase) => buy(sale, &mut state, purchase),
        Action::BuyAndWait(purchase) => buy_and_wait(sale, &mut state, purchase),
        Action::ReadAnswer => read_answer(sale, &mut state),
        Action::Donate(transfer, want) => donate(sale, &mut state, transfer, want),
        Action::Redrive(transfer) => redrive(sale, &mut state, transfer),
        Action::Accept(transfer, cumulative) => accept(sale, &mut state, transfer, cumulative),
        Action::FallBehind(shard) => state.shards[shard].fall_behind(),
        Action::FailOver(shard) => fail_over(sale, &mut state, shard),
        Action::Join(shard) => state.shards[shard].join(sale.protocol),
        Action::FinishCopy(shard) => state.shards[shard].link = ReplicaLink::InStep,
        Action::ReadMap(shard) => state.shards[shard].read_map(sale.answers_wait),
        Action::CopyFromOutside(shard) => state.shards[shard].external_copier = true,
        Action::Audit => state.audit = Some(audit_begun(sale, &state)),
        Action::Crash => crash(&mut state),
        Action::CatchUp(shard) => state.shards[shard].link = ReplicaLink::InStep,
        Action::CopyAgain(shard) => {
            state.shards[shard].link = ReplicaLink::Copying(state.shards[shard].primary);
        }
        Action::ReadLevel(shard, server) => state.read_level(shard, server, sale.protocol),
        Action::Take(purchase) => take(sale, &mut state, purchase),
        Action::GiveUp(user) => state.reported[user].out_of_stock = true,
    }
    if !sale.is_spelled_out {
        state.read_levels(sale.protocol);
    }
    state
}

fn buy(sale: &SaleModel, state: &mut State, purchase: Purchase) {
    let Purchase { user, attempt, shard, server, .. } = purchase;
    let Some(contents) = state.shards[shard].contents_mut(server) else { return };
    if !sale.protocol.has(Protection::BuyIsAtomic) && contents.check(user, attempt) == BuyAnswer::Bought {
        state.found_token[user][attempt as usize] |= server == Server::Primary;
        return;
    }
    let answer = contents.buy(user, attempt);
    report_after_barrier(sale, state, purchase, answer);
}

/// The server answers, and no node has read the answer yet.
fn buy_and_wait(sale: &SaleModel, state: &mut State, purchase: Purchase) {
    let Purchase { user, attempt, shard, server, .. } = purchase;
    let sold_out = state.read_as_sold_out(sale.total(), sale.protocol);
    let Some(contents) = state.shards[shard].contents_mut(server) else { return };
    let answer = contents.buy(user, attempt);
    if state.shards[shard].holds_alone(server, answer.wrote(sale.protocol), sale.protocol) {
        state.unread = Some(UnreadAnswer { purchase, answer, sold_out });
    }
}

/// A node reads the answer, and checks its map once more.
fn read_answer(sale: &SaleModel, state: &mut State) {
    let Some(UnreadAnswer { purchase, answer, sold_out }) = state.unread.take() else { return };
    let Purchase { user, attempt, shard, server, .. } = purchase;
    let is_checked = sale.protocol.has(Protection::AloneIsCheckedAtReply);
    if !is_checked || state.shards[shard].is_alone_on_a_map(server) {
        state.report(user, attempt, answer, sold_out, sale.protocol);
    }
}

fn take(sale: &SaleModel, state: &mut State, purchase: Purchase) {
    let Purchase { user, attempt, shard, .. } = purchase;
    state.found_token[user][attempt as usize] = false;
    state.shards[shard].primary.sell(user, attempt);
    report_after_barrier(sale, state, purchase, BuyAnswer::Bought);
}

/// Applies barrier B1 and then gives the user the answer.
fn report_after_barrier(sale: &SaleModel, state: &mut State, purchase: Purchase, answer: BuyAnswer) {
    let Purchase { user, attempt, shard, server, answered } = purchase;
    let protocol = sale.protocol;
    let confirmed = state.shards[shard].confirms(server, answer.wrote(protocol), protocol)
        || !protocol.has(Protection::BarrierBeforeAnswer)
        || !protocol.has(Protection::FailedReplicasCount) && server == Server::Primary;
    if answered && confirmed {
        let sold_out = state.read_as_sold_out(sale.total(), protocol);
        state.report(user, attempt, answer, sold_out, protocol);
    }
}

/// Runs `donate` and barrier B2. After the barrier the node holds the channel's value.
fn donate(sale: &SaleModel, state: &mut State, transfer: TransferCall, want: i8) {
    let TransferCall { from, to, server, answered } = transfer;
    let Some(contents) = state.shards[from].contents_mut(server) else { return };
    let cumulative = contents.donate(to, want, sale.protocol);
    let confirmed = state.shards[from].confirms(server, true, sale.protocol);
    if answered && (confirmed || !sale.protocol.has(Protection::BarrierBeforeAccept)) {
        state.held_values[from][to] |= 1 << cumulative;
    }
}

fn redrive(sale: &SaleModel, state: &mut State, transfer: TransferCall) {
    let TransferCall { from, to, server, answered } = transfer;
    let Some(contents) = state.shards[from].contents(server) else { return };
    let cumulative = contents.donated[to];
    let wrote = sale.protocol.has(Protection::Tick);
    let confirmed = state.shards[from].confirms(server, wrote, sale.protocol);
    if answered && (confirmed || !sale.protocol.has(Protection::BarrierBeforeRedrive)) {
        state.held_values[from][to] |= 1 << cumulative;
    }
}

fn accept(sale: &SaleModel, state: &mut State, transfer: TransferCall, cumulative: i8) {
    if let Some(contents) = state.shards[transfer.to].contents_mut(transfer.server) {
        contents.accept(transfer.from, cumulative, sale.protocol);
    }
}

fn fail_over(sale: &SaleModel, state: &mut State, shard: usize) {
    if let ReplicaLink::Behind(promoted) | ReplicaLink::Copying(promoted) = state.shards[shard].link {
        state.shards[shard].fail_over(promoted);
        state.failovers_left -= 1;
        state.unread = state.unread.and_then(|unread| after_failover(sale, unread, shard));
    }
}

fn after_failover(sale: &SaleModel, unread: UnreadAnswer, shard: usize) -> Option<UnreadAnswer> {
    let server = match unread.purchase.server {
        server if unread.purchase.shard != shard => server,
        Server::Primary => Server::StalePrimary,
        Server::StalePrimary if sale.protocol.has(Protection::AnswersExpire) => return None,
        Server::StalePrimary => Server::Primary,
    };
    Some(UnreadAnswer { purchase: Purchase { server, ..unread.purchase }, ..unread })
}

fn audit_begun(sale: &SaleModel, state: &State) -> Channels {
    match sale.protocol.has(Protection::AuditReadsInFirst) {
        true => state.accepted(),
        false => state.donated(),
    }
}

fn crash(state: &mut State) {
    state.held_values = Default::default();
    state.readings = LevelReadings::default();
    state.found_token = Default::default();
}
