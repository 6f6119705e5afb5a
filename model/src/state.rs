//! The state of the model: shards, held values, readings of levels, and answers to users.

use crate::actions::Purchase;
use crate::contents::{Attempt, BuyAnswer, SHARDS, USERS};
use crate::protocol::{Protection, Protocol};
use crate::shard::{Server, Shard};

/// The model at one moment.
///
/// Everything that a caller *may* know or do is treated as known and possible. A held answer of a donation is never
/// dropped, a level that can be read is read, an answer that can be given is given, and any attempt may reach any
/// server again at any time. Knowledge only allows more actions and never prevents one. So a run in which a node
/// crashes, an answer is lost or a reader is slow reaches no contents and no promise that this run does not reach
/// too. Crashes, retries, delayed calls and any number of nodes therefore need no state of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The shards.
    pub shards: [Shard; SHARDS],
    /// For each channel, by donor and receiver: the cumulative values that some node or coordinator holds and may
    /// send to `accept` now, later, twice or never. Bit `n` stands for the value `n`.
    pub held_values: [[u8; SHARDS]; SHARDS],
    /// Readings of the shards' levels.
    pub readings: LevelReadings,
    /// The answers to each user.
    pub reported: [ReportedToUser; USERS],
    /// Number of failovers that may still happen.
    pub failovers_left: u8,
    /// The first half of an audit's reading.
    pub audit: Option<Channels>,
    /// The attempts, by user, that found a token and have not taken it yet. Used only when `buy` is not atomic.
    pub found_token: [[bool; 2]; USERS],
    /// An answer that no node has read yet. Used only when answers wait.
    pub unread: Option<UnreadAnswer>,
    /// The users who found their home shard empty. Used only when home shards are not checked again.
    pub found_empty: [bool; USERS],
}

/// One end of each channel, by donor and receiver.
pub type Channels = [[i8; SHARDS]; SHARDS];

/// Readings of levels, each shard at another time: a snapshot is not taken at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LevelReadings {
    /// The maximum sold count read from each shard.
    pub sold: [i8; SHARDS],
    /// True when a shard was read as empty. Used only when sold out is derived from stocks.
    pub empty: [bool; SHARDS],
}

/// The answers that a user got from all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReportedToUser {
    /// The attempt that has the unit, by an answer: `purchased` to that attempt, `already_purchased` to another.
    pub promised: Option<Attempt>,
    /// True after the answer `out_of_stock`.
    pub out_of_stock: bool,
    /// True after the answer `already_purchased` to the attempt that has the unit.
    pub refused_own: bool,
}

/// An answer to a call whose barrier was chosen by a map without replicas. The server's own list of replicas agreed
/// with that map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnreadAnswer {
    /// The call. Its server is the one that answered, by its current role.
    pub purchase: Purchase,
    /// The answer.
    pub answer: BuyAnswer,
    /// True when the sale was read as sold out before the call.
    pub sold_out: bool,
}

impl State {
    /// Tokens in the shards.
    pub fn stock(&self) -> i8 {
        self.shards.iter().map(|shard| shard.primary.stock).sum()
    }

    /// Units sold.
    pub fn sold(&self) -> i8 {
        self.shards.iter().map(|shard| shard.primary.sold).sum()
    }

    /// The donated ends of all channels.
    pub fn donated(&self) -> Channels {
        std::array::from_fn(|from| self.shards[from].primary.donated)
    }

    /// The accepted ends of all channels.
    pub fn accepted(&self) -> Channels {
        std::array::from_fn(|from| std::array::from_fn(|to| self.shards[to].primary.accepted[from]))
    }

    /// The claim of a user, according to the current primaries.
    pub fn claim(&self, user: usize) -> Option<Attempt> {
        self.shards.iter().find_map(|shard| shard.primary.claims[user])
    }

    /// Number of servers outside the cluster that copy a primary or a demoted primary.
    pub fn external_copiers(&self) -> usize {
        let at_stale_primary =
            |shard: &Shard| shard.stale_primary.is_some_and(|stale_primary| stale_primary.external_copier);
        self.shards
            .iter()
            .map(|shard| usize::from(shard.external_copier) + usize::from(at_stale_primary(shard)))
            .sum()
    }

    /// Reads the level of every server that may be taken for the primary of its shard.
    pub fn read_levels(&mut self, protocol: Protocol) {
        for shard in 0..SHARDS {
            for server in self.shards[shard].servers() {
                self.read_level(shard, server, protocol);
            }
        }
    }

    /// Reads one level. A sold count is used only after a barrier: a `tick` and its `WAIT`.
    pub fn read_level(&mut self, shard: usize, server: Server, protocol: Protocol) {
        let confirmed = self.shards[shard].confirms(server, true, protocol);
        let Some(contents) = self.shards[shard].contents(server) else { return };
        if confirmed || !protocol.has(Protection::SoldOutIsConfirmed) {
            self.readings.sold[shard] = self.readings.sold[shard].max(contents.sold);
        }
        self.readings.empty[shard] |= !protocol.has(Protection::SoldOutFromSales) && contents.stock == 0;
    }

    /// Returns true when some node has read that all `total` units are sold.
    pub fn read_as_sold_out(&self, total: i8, protocol: Protocol) -> bool {
        match protocol.has(Protection::SoldOutFromSales) {
            true => self.readings.sold.iter().sum::<i8>() >= total,
            false => self.readings.empty.iter().all(|&empty| empty),
        }
    }

    /// Gives a user the result of a call of one attempt. `sold_out` was read before the call.
    pub fn report(
        &mut self,
        user: usize,
        attempt: Attempt,
        answer: BuyAnswer,
        sold_out: bool,
        protocol: Protocol,
    ) {
        let reported = &mut self.reported[user];
        match answer {
            BuyAnswer::Repeat if !protocol.has(Protection::OrderIds) => reported.refused_own = true,
            BuyAnswer::Bought | BuyAnswer::Repeat => reported.promised = Some(attempt),
            BuyAnswer::Duplicate(holder) => reported.promised = Some(holder),
            BuyAnswer::Empty if sold_out => reported.out_of_stock = true,
            BuyAnswer::Empty => self.found_empty[user] = !protocol.has(Protection::HomeCheckedAgain),
        }
    }
}
