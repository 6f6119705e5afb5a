//! A shard's books, and the functions that Redis runs on them: each atomic, each as its `.lua` file says.

use crate::protocol::{Protection, Protocol};

/// Shards of a modelled sale.
pub const SHARDS: usize = 2;
/// Most users of a modelled sale.
pub const USERS: usize = 4;

/// One purchase attempt of a user, which is what an order id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    /// The one that is repeated when its answer was lost.
    First,
    /// Another one, from another tab or device.
    Second,
}

impl Attempt {
    /// Both.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];
}

/// What a server holds of a shard. Numbers are signed so that a mutant can go below zero and be seen there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardContents {
    /// Tokens that lie here.
    pub stock: i8,
    /// Tokens that were sold here.
    pub sold: i8,
    /// Cumulative tokens that went into the channel to each shard.
    pub donated: [i8; SHARDS],
    /// Cumulative tokens that came out of the channel from each shard. No shard has a channel to itself: its own
    /// place holds what came from the mint.
    pub accepted: [i8; SHARDS],
    /// Which attempt of each user has a unit.
    pub claims: [Option<Attempt>; USERS],
    /// How many orders the stream holds of each attempt of each user.
    pub orders: [[u8; 2]; USERS],
}

/// The answer of `buy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuyAnswer {
    /// The unit was taken by this call.
    Bought,
    /// It was taken by an earlier call of this attempt.
    Repeat,
    /// It was taken by this other attempt.
    Duplicate(Attempt),
    /// No token is left here.
    Empty,
}

impl BuyAnswer {
    /// Whether the call wrote, so that a barrier behind it proves something. Empty writes nothing.
    pub fn wrote(self, protocol: Protocol) -> bool {
        match self {
            Self::Bought => true,
            Self::Repeat | Self::Duplicate(_) => protocol.has(Protection::Tick),
            Self::Empty => false,
        }
    }
}

impl ShardContents {
    /// The books of shard `shard` after it accepted `tokens` from the mint.
    pub fn minted(shard: usize, tokens: i8) -> Self {
        let mut books = Self { stock: tokens, ..Self::default() };
        books.accepted[shard] = tokens;
        books
    }

    /// What `buy` finds before it writes anything.
    pub fn look(&self, user: usize, attempt: Attempt) -> BuyAnswer {
        match self.claims[user] {
            Some(claim) if claim == attempt => BuyAnswer::Repeat,
            Some(claim) => BuyAnswer::Duplicate(claim),
            None if self.stock == 0 => BuyAnswer::Empty,
            None => BuyAnswer::Bought,
        }
    }

    /// What `buy` writes for one who has no claim.
    pub fn sell(&mut self, user: usize, attempt: Attempt) {
        self.orders[user][attempt as usize] += 1;
        self.claims[user] = Some(attempt);
        self.stock -= 1;
        self.sold += 1;
    }

    /// `buy` for one user.
    pub fn buy(&mut self, user: usize, attempt: Attempt) -> BuyAnswer {
        let answer = self.look(user, attempt);
        if answer == BuyAnswer::Bought {
            self.sell(user, attempt);
        }
        answer
    }

    /// Most that one `donate` gives: half, but at least the last token.
    pub fn donation_max(&self) -> i8 {
        self.stock.min((self.stock / 2).max(1))
    }

    /// `donate`; the answer is what has entered the channel since the sale began. Wanting 0 only repeats it.
    pub fn donate(&mut self, to: usize, want: i8, protocol: Protocol) -> i8 {
        let looks = protocol.has(Protection::DonateLooksAtStock);
        let given = if looks { want.min(self.donation_max()) } else { want };
        self.stock -= given;
        self.donated[to] += given;
        self.donated[to]
    }

    /// `accept` of a channel's cumulative value.
    pub fn accept(&mut self, from: usize, cumulative: i8, protocol: Protocol) {
        let takes_maximum = protocol.has(Protection::AcceptTakesMaximum);
        let fresh = if takes_maximum { (cumulative - self.accepted[from]).max(0) } else { cumulative };
        self.accepted[from] += fresh;
        self.stock += fresh;
    }
}
