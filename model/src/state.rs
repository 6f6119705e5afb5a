//! The state of the whole world: shards, what is in somebody's hands, what was seen, what was told.

use crate::actions::Purchase;
use crate::contents::{Attempt, BuyAnswer, SHARDS, USERS};
use crate::protocol::{Protection, Protocol};
use crate::shard::{Server, Shard};

/// The world at one moment.
///
/// What somebody *may* know or do is kept as if somebody did: a hand that holds a donation's answer is never emptied,
/// a level that could be read was read, an answer that could be told was told, and any attempt may reach any server
/// again at any time. Such knowledge only ever allows more and takes nothing away, so a run in which a node crashes,
/// an answer is lost or a reader is slow reaches no promise and no books that this one does not reach too. That
/// leaves crashes, retries, delayed calls and any number of nodes without a state of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The shards.
    pub shards: [Shard; SHARDS],
    /// For each channel, from and to, the cumulative values that some node or coordinator holds and may present to
    /// `accept` now, later, twice or never: bit `n` stands for the value `n`.
    pub hands: [[u8; SHARDS]; SHARDS],
    /// What was seen of the shards' levels.
    pub seen: LevelReadings,
    /// What each user was told.
    pub told: [Reported; USERS],
    /// Failovers that may still happen.
    pub failovers_left: u8,
    /// The first half of an audit's reading.
    pub audit: Option<Channels>,
    /// Only where `buy` is not atomic: the attempts, by user, that found a token and did not take it yet.
    pub looked: [[bool; 2]; USERS],
    /// Only where answers wait: one that no node has read.
    pub unread: Option<UnreadAnswer>,
    /// Only where homes are not asked again: the users who found their home shard empty.
    pub found_empty: [bool; USERS],
}

/// One end of each channel, from and to.
pub type Channels = [[i8; SHARDS]; SHARDS];

/// What readers of levels saw at some time, each shard at another: a snapshot is not taken at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LevelReadings {
    /// The most that was seen sold in each shard.
    pub sold: [i8; SHARDS],
    /// Only where sold out is told from stocks: whether a shard was seen empty.
    pub empty: [bool; SHARDS],
}

/// What a user was told, by all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reported {
    /// That this attempt has the unit: `purchased` to itself, `already_purchased` to another.
    pub promised: Option<Attempt>,
    /// `out_of_stock`.
    pub out_of_stock: bool,
    /// `already_purchased`, to the very attempt that has the unit.
    pub refused_own: bool,
}

/// An answer to a call whose barrier was chosen by a map without replicas, and held by what the server said of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnreadAnswer {
    /// The call. Its server is the one that answered, by its role now.
    pub purchase: Purchase,
    /// The answer.
    pub answer: BuyAnswer,
    /// Whether the sale was seen sold out before the call.
    pub sold_out: bool,
}

impl State {
    /// Tokens lying in shards.
    pub fn stock(&self) -> i8 {
        self.shards.iter().map(|shard| shard.primary.stock).sum()
    }

    /// Units sold.
    pub fn sold(&self) -> i8 {
        self.shards.iter().map(|shard| shard.primary.sold).sum()
    }

    /// The giving ends of all channels.
    pub fn donated(&self) -> Channels {
        std::array::from_fn(|from| self.shards[from].primary.donated)
    }

    /// The receiving ends of all channels.
    pub fn accepted(&self) -> Channels {
        std::array::from_fn(|from| std::array::from_fn(|to| self.shards[to].primary.accepted[from]))
    }

    /// The claim that a user has by the current primaries.
    pub fn claim(&self, user: usize) -> Option<Attempt> {
        self.shards.iter().find_map(|shard| shard.primary.claims[user])
    }

    /// Servers outside the cluster that copy a primary, or a deposed one.
    pub fn outsiders(&self) -> usize {
        let at_zombie = |shard: &Shard| shard.zombie.is_some_and(|zombie| zombie.outsider);
        self.shards.iter().map(|shard| usize::from(shard.outsider) + usize::from(at_zombie(shard))).sum()
    }

    /// Reads the level of every server that may be taken for a shard's primary.
    pub fn read_levels(&mut self, protocol: Protocol) {
        for shard in 0..SHARDS {
            for server in self.shards[shard].servers() {
                self.read_level(shard, server, protocol);
            }
        }
    }

    /// Reads one level. What is seen sold counts behind a barrier: a `tick` and its `WAIT`.
    pub fn read_level(&mut self, shard: usize, server: Server, protocol: Protocol) {
        let confirmed = self.shards[shard].confirms(server, true, protocol);
        let Some(books) = self.shards[shard].books(server) else { return };
        if confirmed || !protocol.has(Protection::SoldOutIsConfirmed) {
            self.seen.sold[shard] = self.seen.sold[shard].max(books.sold);
        }
        self.seen.empty[shard] |= !protocol.has(Protection::SoldOutFromSales) && books.stock == 0;
    }

    /// Whether some node was told that all `total` units are sold.
    pub fn seen_sold_out(&self, total: i8, protocol: Protocol) -> bool {
        match protocol.has(Protection::SoldOutFromSales) {
            true => self.seen.sold.iter().sum::<i8>() >= total,
            false => self.seen.empty.iter().all(|&empty| empty),
        }
    }

    /// Tells a user what a call of one of the attempts found. `sold_out` was seen before the call.
    pub fn tell(
        &mut self,
        user: usize,
        attempt: Attempt,
        answer: BuyAnswer,
        sold_out: bool,
        protocol: Protocol,
    ) {
        let told = &mut self.told[user];
        match answer {
            BuyAnswer::Repeat if !protocol.has(Protection::OrderIds) => told.refused_own = true,
            BuyAnswer::Bought | BuyAnswer::Repeat => told.promised = Some(attempt),
            BuyAnswer::Duplicate(holder) => told.promised = Some(holder),
            BuyAnswer::Empty if sold_out => told.out_of_stock = true,
            BuyAnswer::Empty => self.found_empty[user] = !protocol.has(Protection::HomeAskedAgain),
        }
    }
}
