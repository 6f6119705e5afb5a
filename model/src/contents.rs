//! The contents of a shard, and the Redis functions on them. Each function is atomic and follows its `.lua` file.

use crate::protocol::{Protection, Protocol};

/// Number of shards of a modelled sale.
pub const SHARDS: usize = 2;
/// Maximum number of users of a modelled sale.
pub const USERS: usize = 4;

/// One purchase attempt of a user, identified by its order id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    /// The attempt that is retried when its answer is lost.
    First,
    /// A second attempt, from another tab or device.
    Second,
}

impl Attempt {
    /// Both attempts.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];
}

/// The data that one server holds of a shard. Numbers are signed, so that a mutant can go below zero and be detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardContents {
    /// Tokens in this shard.
    pub stock: i8,
    /// Tokens sold by this shard.
    pub sold: i8,
    /// Cumulative tokens donated into the channel to each shard.
    pub donated: [i8; SHARDS],
    /// Cumulative tokens accepted from the channel of each shard. A shard has no channel to itself: its own entry
    /// holds the tokens from the mint.
    pub accepted: [i8; SHARDS],
    /// The attempt of each user that has a unit.
    pub claims: [Option<Attempt>; USERS],
    /// Number of orders in the stream, by user and attempt.
    pub orders: [[u8; 2]; USERS],
}

/// The answer of `buy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuyAnswer {
    /// This call took the unit.
    Bought,
    /// An earlier call of this attempt took it.
    Repeat,
    /// The given other attempt took it.
    Duplicate(Attempt),
    /// No token is left in this shard.
    Empty,
}

impl BuyAnswer {
    /// Returns true when the call wrote something, so that a barrier after it proves something. `Empty` writes
    /// nothing.
    pub fn wrote(self, protocol: Protocol) -> bool {
        match self {
            Self::Bought => true,
            Self::Repeat | Self::Duplicate(_) => protocol.has(Protection::Tick),
            Self::Empty => false,
        }
    }
}

impl ShardContents {
    /// Returns the contents of shard `shard` after it accepted `tokens` from the mint.
    pub fn minted(shard: usize, tokens: i8) -> Self {
        let mut contents = Self { stock: tokens, ..Self::default() };
        contents.accepted[shard] = tokens;
        contents
    }

    /// Returns the answer of `buy` without writing anything.
    pub fn check(&self, user: usize, attempt: Attempt) -> BuyAnswer {
        match self.claims[user] {
            Some(claim) if claim == attempt => BuyAnswer::Repeat,
            Some(claim) => BuyAnswer::Duplicate(claim),
            None if self.stock == 0 => BuyAnswer::Empty,
            None => BuyAnswer::Bought,
        }
    }

    /// Writes the sale to a user without a claim.
    pub fn sell(&mut self, user: usize, attempt: Attempt) {
        self.orders[user][attempt as usize] += 1;
        self.claims[user] = Some(attempt);
        self.stock -= 1;
        self.sold += 1;
    }

    /// Runs `buy` for one user.
    pub fn buy(&mut self, user: usize, attempt: Attempt) -> BuyAnswer {
        let answer = self.check(user, attempt);
        if answer == BuyAnswer::Bought {
            self.sell(user, attempt);
        }
        answer
    }

    /// Maximum that one `donate` gives: half of the stock, or the last token.
    pub fn donation_max(&self) -> i8 {
        self.stock.min((self.stock / 2).max(1))
    }

    /// Runs `donate` and returns the cumulative value of the channel. Asking for 0 returns it unchanged.
    pub fn donate(&mut self, to: usize, want: i8, protocol: Protocol) -> i8 {
        let checks_stock = protocol.has(Protection::DonateChecksStock);
        let given = if checks_stock { want.min(self.donation_max()) } else { want };
        self.stock -= given;
        self.donated[to] += given;
        self.donated[to]
    }

    /// Runs `accept` with a channel's cumulative value.
    pub fn accept(&mut self, from: usize, cumulative: i8, protocol: Protocol) {
        let takes_maximum = protocol.has(Protection::AcceptTakesMaximum);
        let fresh = if takes_maximum { (cumulative - self.accepted[from]).max(0) } else { cumulative };
        self.accepted[from] += fresh;
        self.stock += fresh;
    }
}
